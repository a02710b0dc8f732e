"""The access log: what a line says, what it never says, and that the file stays small and closed to others."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed

from llmbench import recipe
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.gateway import Access
from llmbench.gateway.observing.access_log import AccessLog
from llmbench.recipe import AccessLogSpec, ServeRecipe

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"


async def lines(
    spec: AccessLogSpec, *bodies: dict[str, Any], api_key: str | None = None, **headers: str
) -> list[dict[str, Any]]:
    """What is written of requests."""
    access = Access(api_key)
    log = AccessLog(spec, access.hide, pytest.fail)
    with log.backlog:
        async with client(observed(ObservedEngine(), access=access, sinks=[log], keeps=spec.prompts), api_key) as http:
            for body in bodies:
                await http.post(CHAT, json=body, headers=headers)
    return [json.loads(line) for line in log.path.read_text().splitlines()]


async def test_a_line_says_who_asked_what_and_how_it_went_but_not_what_was_said(tmp_path: Path) -> None:
    spec = AccessLogSpec(path=tmp_path / "logs" / "access.jsonl")
    one, two, three = await lines(spec, ask("pages"), ask(stream=True, user="ann"), ask("other"), **{"x-request-id": "r-1"})
    assert (one["id"], one["model"], one["variant"], one["status"], one["error"]) == ("r-1", "pages", "pages", 200, None)
    assert (one["method"], one["pipeline"], two["pipeline"]) == ("POST", "pages", None)
    assert (one["input_tokens"], one["output_tokens"], one["passages"]) == (7, 3, 2)
    assert one["queue_seconds"] >= 0 and one["retrieval_seconds"] >= 0 and one["seconds"] >= one["engine_seconds"]
    assert one["first_seconds"] is None and one["time"].startswith("20") and one["time"].endswith("+00:00")
    assert two["stream"] is True and 0 <= two["first_seconds"] <= two["seconds"] and two["passages"] is None
    assert (three["status"], three["error"], three["variant"]) == (404, "model_not_found", "")
    text = spec.path.read_text() if spec.path else ""
    assert "lamp" not in text and "ann" not in text
    assert stat.S_IMODE((tmp_path / "logs" / "access.jsonl").stat().st_mode) == 0o600


async def test_what_was_said_is_written_where_the_document_asks_for_it(tmp_path: Path) -> None:
    spec = AccessLogSpec(path=tmp_path / "a.jsonl", prompts=True)
    for line in await lines(spec, ask(), ask(stream=True)):
        assert line["messages"] == [{"role": "user", "content": "What colour is the lamp?"}]
        assert line["answer"] == "The lamp is red [1]."


async def test_requests_without_the_right_key_are_written_too(tmp_path: Path) -> None:
    access = Access("a-key-of-the-owner")
    log = AccessLog(AccessLogSpec(path=tmp_path / "a.jsonl"), access.hide, pytest.fail)
    with log.backlog:
        async with client(observed(ObservedEngine(), access=access, sinks=[log]), "another") as http:
            assert (await http.post(CHAT, json=ask())).status_code == 401
    line = json.loads(log.path.read_text())
    assert (line["status"], line["error"], line["path"]) == (401, "invalid_api_key", CHAT)


async def test_files_are_rotated_by_size_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for number in range(5):  # each opening writes one batch
        spec = AccessLogSpec(path=path, max_bytes=10_000, keep=2, prompts=True)
        await lines(spec, ask(messages=[{"role": "user", "content": f"{number}" * 9000}]))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.jsonl", "a.jsonl.1", "a.jsonl.2"]
    assert ["44" in path.read_text(), "33" in path.with_name("a.jsonl.1").read_text()] == [True, True]
    assert all(one.stat().st_size < 10_000 and stat.S_IMODE(one.stat().st_mode) == 0o600 for one in tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(LlmbenchError, match=r"the access log cannot be written \(.*\)\. Set gateway\.access_log"):
            AccessLog(AccessLogSpec(path=path), str, print)


def test_the_document_may_say_true_a_path_or_all_of_it(tmp_path: Path) -> None:
    document = tmp_path / "serve.yaml"

    def spec(text: str, *overrides: str) -> AccessLogSpec | None:
        document.write_text(f"variants: [{{name: base}}]\ngateway:\n  access_log: {text}\n")
        return recipe.load(document, ServeRecipe, list(overrides)).gateway.access_log

    assert spec("true") == AccessLogSpec() and spec("false") is None and spec("") is None
    assert spec("logs/a.jsonl") == AccessLogSpec(path=tmp_path / "logs" / "a.jsonl")
    assert spec("{path: a.jsonl, prompts: true}") == AccessLogSpec(path=tmp_path / "a.jsonl", prompts=True)
    assert spec("true", "gateway.access_log.keep=2") == AccessLogSpec(keep=2)
    assert spec("false", "gateway.access_log=b.jsonl") == AccessLogSpec(path=Path.cwd() / "b.jsonl")
    with pytest.raises(RecipeError, match=r"serve\.yaml:3: gateway\.access_log\.promts is not a field\. Did you mean prompts"):
        spec("{promts: true}")
