"""Captured conversations: whose, how large a share, what is in them, and how they go again."""

from __future__ import annotations

import json
import sqlite3
import stat
import string
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed
from typer.testing import CliRunner

from llmbench import recipe
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.gateway import Access
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.observing.capture import Capture
from llmbench.gateway.observing.records import CapturedRequest, CaptureStore, default_path
from llmbench.recipe import CaptureSpec, ServeRecipe

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
ALL: dict[str, Any] = {"consent": "opt-out", "share": 1.0}


async def captured(
    spec: CaptureSpec, *bodies: dict[str, Any], engine: ObservedEngine | None = None, header: str | None = None
) -> list[CapturedRequest]:
    """What the file holds after some requests, the newest first."""
    headers = {"x-llmbench-capture": header} if header is not None else {}
    with Capture(spec, Access().hide, pytest.fail) as capture:
        async with client(observed(engine or ObservedEngine(), sinks=[capture], keeps=True)) as http:
            for body in bodies:
                await http.post(CHAT, json=body, headers=headers)
    store = CaptureStore(spec.path or default_path())
    try:
        return store.newest(1000)
    finally:
        store.close()


async def test_a_record_holds_what_was_asked_found_and_answered(tmp_path: Path) -> None:
    path = tmp_path / "records" / "capture.sqlite"
    found = await captured(CaptureSpec(path=path, **ALL), ask("pages"), ask(stream=True, user="ann"), ask("other"), ask(n=0))
    stream, whole = (record.as_json() for record in found)
    assert (whole["variant"], whole["asked"], whole["key"], whole["complete"]) == ("pages", "pages", "", True)
    assert whole["messages"] == [{"role": "user", "content": "What colour is the lamp?"}]
    assert [one["source"] for one in whole["sources"]] == ["lamp.md", "door.md"]
    assert (whole["answer"], whole["finish_reason"]) == ("The lamp is red [1].", "stop")
    assert (whole["input_tokens"], whole["output_tokens"], whole["first_seconds"]) == (7, 3, None)
    assert stream["sources"] is None and stream["first_seconds"] >= 0 and stream["answer"] == whole["answer"]
    assert whole["user"] is None and len(stream["user"]) == 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"ann" not in path.read_bytes()


@pytest.mark.parametrize(
    ("consent", "header", "kept"),
    [
        ("opt-out", None, 1), ("opt-out", "yes", 1), ("opt-out", "no", 0), ("opt-out", "please do not", 0),
        ("opt-in", None, 0), ("opt-in", "yes", 1), ("opt-in", " Yes ", 1), ("opt-in", "no", 0),
    ],
)  # fmt: skip
async def test_a_client_decides_with_a_header(tmp_path: Path, consent: Any, header: str | None, kept: int) -> None:
    spec = CaptureSpec(path=tmp_path / "c.sqlite", consent=consent, share=1.0)
    assert len(await captured(spec, ask(), header=header)) == kept


async def test_other_keys_than_those_named_are_left_out(tmp_path: Path) -> None:
    assert await captured(CaptureSpec(path=tmp_path / "c.sqlite", keys=["alice"], **ALL), ask()) == []


def exchanges(user: str | None, first: str, turns: int) -> list[Exchange]:
    """The requests of one conversation, each with all turns before it."""
    found = []
    for turn in range(1, turns + 1):
        said = [{"role": "user", "content": first}] + [{"role": "user", "content": str(n)} for n in range(turn - 1)]
        one = Exchange(CHAT, f"{user}-{first}-{turn}", user=user, status=200, keeps=True, conversation=said)  # type: ignore[arg-type]
        one.body = [json.dumps({"choices": [{"message": {"content": "yes"}, "finish_reason": "stop"}]}).encode()]
        found.append(one)
    return found


def test_a_conversation_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    spec = CaptureSpec(path=tmp_path / "c.sqlite", consent="opt-out", share=0.3)
    with Capture(spec, Access().hide, pytest.fail) as capture:
        for number in range(400):
            for one in exchanges(f"user {number}" if number % 2 else None, f"question {number}", turns=3):
                capture(one)
    store = CaptureStore(tmp_path / "c.sqlite")
    kept: dict[str, int] = {}
    for record in store.every():
        kept[record.conversation] = kept.get(record.conversation, 0) + 1
    store.close()
    assert set(kept.values()) == {3}
    assert 0.3 * 400 - 50 < len(kept) < 0.3 * 400 + 50  # five standard deviations


async def test_keys_and_addresses_are_replaced_before_anything_is_written(tmp_path: Path) -> None:
    drawn = "".join(Random(7).choices(string.ascii_letters + string.digits, k=48))  # so that no key-like text stands here
    secrets = ["ann.smith@firm.org", f"sk-proj-{drawn}", "4111 1111 1111 1111", "DE89 3704 0044 0532 0130 00"]
    named = "llmb-0123456789ab-" + "aB3" * 14 + "x"
    text = "Mine:\n" + "\n".join([*secrets, named])
    engine = ObservedEngine(text)
    body = ask(messages=[{"role": "system", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}])
    for redact in (True, False):
        path = tmp_path / f"{redact}.sqlite"
        (record,) = await captured(CaptureSpec(path=path, redact=redact, **ALL), body, engine=engine)
        everything = record.messages + record.answer
        assert [secret in everything for secret in secrets] == [not redact] * 4
        assert named not in everything and "0123456789ab" not in everything  # a key of this server in any case
        assert record.redacted is redact
        if redact:
            raw = b"".join(one.read_bytes() for one in tmp_path.iterdir())
            assert not any(secret.encode() in raw for secret in secrets)
            assert record.answer.split("\n")[1:] == ["[e-mail address]", "[OpenAI key]", "[card number]", "[IBAN]", "[key]"]


async def test_old_records_go_at_the_start(tmp_path: Path) -> None:
    spec = CaptureSpec(path=tmp_path / "c.sqlite", days=30, **ALL)
    (record,) = await captured(spec, ask())
    store = CaptureStore(tmp_path / "c.sqlite")
    store.add([replace(record, request="old", at=time.time() - 31 * 86_400), replace(record, request="young")])
    store.close()
    assert {one.request for one in await captured(spec)} == {record.request, "young"}


async def test_records_are_deleted_by_request_and_by_user_and_their_bytes_too(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    bodies = [ask(user=user, messages=[{"role": "user", "content": f"{user}'s question"}]) for user in ("ann", "bob", "ann")]
    records = await captured(CaptureSpec(path=path, **ALL), *bodies)
    run = CliRunner().invoke
    assert run(cli, ["capture", "delete", "--user", "ann", "--file", str(path)]).output == "Deleted 2 records.\n"
    assert run(cli, ["capture", "delete", "--user", "ann", "--file", str(path)]).output == "Deleted 0 records.\n"
    raw = b"".join(one.read_bytes() for one in tmp_path.iterdir())
    assert b"ann's question" not in raw and b"bob's question" in raw
    (left,) = [one for one in records if "bob" in one.messages]
    assert run(cli, ["capture", "delete", "--request", left.request, "--file", str(path)]).output == "Deleted 1 record.\n"
    assert b"bob's question" not in b"".join(one.read_bytes() for one in tmp_path.iterdir())


async def test_records_are_listed_and_exported(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "c.sqlite"
    await captured(CaptureSpec(path=path, **ALL), ask("pages"), ask())
    run = CliRunner().invoke
    listed = json.loads(run(cli, ["capture", "list", "--file", str(path), "--json"]).output)
    assert [one["variant"] for one in listed] == ["plain", "pages"]
    assert "2 records in" in run(cli, ["capture", "list", "--file", str(path)]).output
    rows, table = tmp_path / "rows.jsonl", tmp_path / "rows.parquet"
    for to in (rows, table):
        assert run(cli, ["capture", "export", "--to", str(to), "--file", str(path)]).output == f"Wrote 2 records to {to}\n"
        assert stat.S_IMODE(to.stat().st_mode) == 0o600
    assert [json.loads(line) for line in rows.read_text().splitlines()] == listed[::-1]
    assert [json.loads(one["messages"]) for one in parquet.read_table(table).to_pylist()] == [one["messages"] for one in listed]
    for to, why in ((rows, "already exists"), (tmp_path / "rows.csv", "the format is unknown")):
        refused = run(cli, ["capture", "export", "--to", str(to), "--file", str(path)])
        assert isinstance(refused.exception, LlmbenchError) and why in str(refused.exception)


async def test_votes_and_scores_are_written_into_the_record_of_their_request(tmp_path: Path) -> None:
    from pyarrow import parquet

    path = tmp_path / "c.sqlite"
    with Capture(CaptureSpec(path=path, **ALL), Access().hide, pytest.fail) as capture:
        feedbacks = Feedbacks([capture.told_feedback])
        async with client(observed(ObservedEngine(), sinks=[capture], keeps=True, feedbacks=feedbacks)) as http:
            ids = [(await http.post(CHAT, json=ask(n=n))).headers["x-request-id"] for n in (1, 1, 0)]
            for fields in (
                {"value": True, "comment": "Thanks, ann.smith@firm.org."},
                {"metric": "judge", "value": 0.25, "comment": "Cites nothing."},
                {"value": False},
            ):
                assert (await http.post("/v1/feedback", json={"request_id": ids[0]} | fields)).status_code == 200
            await http.post("/v1/feedback", json={"request_id": ids[1], "value": True, "comment": "ann.smith@firm.org"})
    store = CaptureStore(path)
    second, first = store.newest(10)
    store.close()
    assert (first.request, first.vote, first.vote_comment) == (ids[0], False, None)
    assert (first.judge, first.judge_comment) == (0.25, "Cites nothing.")
    assert (second.vote, second.vote_comment, second.judge) == (True, "[e-mail address]", None)
    assert b"ann.smith" not in b"".join(one.read_bytes() for one in tmp_path.iterdir())
    run = CliRunner().invoke
    listed = run(cli, ["capture", "list", "--file", str(path)]).output
    assert " up " in listed and " down " in listed
    run(cli, ["capture", "export", "--to", str(tmp_path / "rows.parquet"), "--file", str(path)])
    rows = parquet.read_table(tmp_path / "rows.parquet").to_pylist()
    assert [(row["vote"], row["judge"]) for row in rows] == [(False, 0.25), (True, None)]


async def test_a_file_of_before_there_were_votes_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    (before,) = await captured(CaptureSpec(path=path, **ALL), ask())
    with sqlite3.connect(path) as old:
        for column in ("vote", "vote_comment", "judge", "judge_comment"):
            old.execute(f"ALTER TABLE records DROP COLUMN {column}")
        old.execute("PRAGMA user_version = 1")
    old.close()
    store = CaptureStore(path)
    store.mark(before.request, before.key, "vote", 1.0, None)
    store.mark("another", before.key, "vote", 0.0, None)
    assert store.newest(10) == [replace(before, vote=True)]
    store.close()


def test_another_programs_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(LlmbenchError, match="another program's"):
        CaptureStore(path)
    assert path.read_bytes()[100:] == before[100:]


def test_a_document_must_say_on_whose_word_it_captures(tmp_path: Path) -> None:
    document = tmp_path / "serve.yaml"
    document.write_text("variants: [{name: base}]\ngateway:\n  capture: {share: 0.5}\n")
    with pytest.raises(RecipeError, match=r"serve\.yaml:3: gateway\.capture\.consent is missing"):
        recipe.load(document, ServeRecipe)
    document.write_text("variants: [{name: base}]\ngateway:\n  capture: {consent: opt-in, path: c.sqlite}\n")
    assert recipe.load(document, ServeRecipe).gateway.capture == CaptureSpec(consent="opt-in", path=tmp_path / "c.sqlite")
