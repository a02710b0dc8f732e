"""The file beside an adapter, and the requests that a server is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench import parity, written
from llmbench.errors import EndpointError, LlmbenchError
from llmbench.parity import Certificate

from .test_judging import certificate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    part = written.begin(tmp_path / ".part")
    (part / "adapter_model.safetensors").write_bytes(b"weights")
    (part / "adapter_config.json").write_text('{"lora_alpha": 16, "r": 8}')
    written.publish(part, tmp_path / "adapter")
    return tmp_path / "adapter"


def known(folder: Path) -> Certificate:
    made = certificate()
    values = made.as_json() | {"files": Certificate.files_of(folder), "config": parity.configuration(folder)}
    return Certificate(**{key: value for key, value in values.items() if key not in ("version", "probes")}, probes=made.probes)


def test_it_comes_back_as_it_was_written(folder: Path) -> None:
    made = known(folder)
    assert parity.read(folder) is None
    parity.write(made, folder)
    assert parity.read(folder) == made
    assert made.changed(folder) == []
    assert written.foreign(folder) == [], "removing the run may remove it"


def test_what_changed_since_is_named_with_the_field(folder: Path) -> None:
    made = known(folder)
    (folder / "adapter_config.json").write_text('{"lora_alpha": 32, "r": 8, "bias": "none"}')
    (folder / "adapter_model.safetensors").write_bytes(b"others")
    assert made.changed(folder) == [
        "adapter_model.safetensors", 'adapter_config.json (bias null then, "none" now; lora_alpha 16 then, 32 now)',
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"version": 1}', '{"version": 1, "probes": []}', "null", "[" * 100_000, '{"version": 1, "probes": [{}]}'],
)
def test_a_damaged_one_is_one_line(folder: Path, text: str) -> None:
    (folder / parity.FILE).write_text(text)
    with pytest.raises(LlmbenchError, match=r"certificate\.json is damaged .* --again$") as caught:
        parity.read(folder)
    assert "\n" not in str(caught.value)


def test_lengths_that_do_not_fit_are_damage(folder: Path) -> None:
    parity.write(known(folder), folder)
    values = json.loads((folder / parity.FILE).read_text())
    values["probes"][3]["trained"]["logprobs"].pop()
    (folder / parity.FILE).write_text(json.dumps(values))
    with pytest.raises(LlmbenchError, match="is damaged"):
        parity.read(folder)


def test_one_of_a_newer_llmbench_says_so(folder: Path) -> None:
    (folder / parity.FILE).write_text('{"version": 2, "probes": []}')
    with pytest.raises(LlmbenchError, match=r"has version 2 and this llmbench reads 1\. Update llmbench"):
        parity.read(folder)


def test_somebody_elses_file_of_that_name_stays(folder: Path) -> None:
    (folder / parity.FILE).write_text('{"issued to": "me"}')
    with pytest.raises(LlmbenchError, match="was not written by llmbench"):
        parity.write(known(folder), folder)
    assert (folder / parity.FILE).read_text() == '{"issued to": "me"}'


def server(answer: Any, status: int = 200) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(status, json=answer)))


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"choices": []},
        {"choices": [{"message": {"content": "Hello"}}], "usage": {}},
        {"choices": [{"token_ids": None, "logprobs": None}], "prompt_token_ids": None, "prompt_logprobs": None},
        {"choices": [{"token_ids": [1], "logprobs": {"content": []}}], "prompt_token_ids": [1, 2], "prompt_logprobs": [None]},
    ],
)
def test_a_server_that_tells_no_log_probabilities_of_the_prompt_is_told(answer: Any) -> None:
    with server(answer) as client, pytest.raises(EndpointError, match=r"tells no token ids and log-probabilities .*vLLM does"):
        parity.ask(client, "a", certificate(), base_url="http://x/v1")


def test_a_server_that_refuses_is_quoted_on_one_line() -> None:
    with (
        server({"error": {"message": "no\nsuch model"}}, 404) as client,
        pytest.raises(EndpointError, match=r"answered 404 to a probe of a: .*no.*such model") as caught,
    ):
        parity.ask(client, "a", certificate(), base_url="http://x/v1")
    assert "\n" not in str(caught.value)


def test_the_chats_are_asked_one_after_the_other_as_the_certificate_says() -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        ids = [1, 15, 27, 33, 2, 9]
        top = {"content": [{"top_logprobs": [{"logprob": -0.1}, {"logprob": -2.1}]}] * 3}
        told = [None, *({str(token): {"logprob": -1.5, "rank": 1}} for token in ids[1:])]
        choice = {"token_ids": [4, 5, 6], "logprobs": top}
        return httpx.Response(200, json={"choices": [choice], "prompt_token_ids": ids, "prompt_logprobs": told})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        found = parity.ask(client, "a", certificate(), base_url="http://x/v1/")
    assert len(found) == len(asked) == 12
    assert found[0].logprobs == (-1.5,) * 5 and found[0].gaps == (2.0,) * 3
    assert all(body["max_tokens"] == 3 and body["temperature"] == 0 and body["model"] == "a" for body in asked)
