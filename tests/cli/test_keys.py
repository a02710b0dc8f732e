"""`llmbench keys`: made, listed, changed and revoked by whoever owns the endpoint."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.quota import DAY


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*words: str) -> Result:
    result = CliRunner().invoke(cli, ["keys", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json").stdout)
    return found


def test_a_new_key_is_printed_once_alone_on_stdout_with_how_to_use_it_beside(home: Path) -> None:
    made = run("new", "alice", "--requests-per-minute", "60")
    key = made.stdout.strip()
    assert re.fullmatch(r"llmb-[0-9a-f]{12}-[A-Za-z0-9_-]{43}", key)
    assert "export OPENAI_API_KEY" in made.stderr and "gateway.keys: true" in made.stderr and key not in made.stderr
    assert (home / "keys.sqlite").stat().st_mode & 0o777 == 0o600
    for shown in (run("list"), run("list", "--json")):
        assert "alice" in shown.stdout and key not in shown.output and key[-43:] not in shown.output


def test_json_holds_the_key_and_what_it_may(home: Path) -> None:
    words = [
        "--model",
        "base",
        "--model",
        "mine",
        "--tokens-per-minute",
        "1_000",
        "--concurrent",
        "2",
        "--tokens-per-day",
        "5,000",
    ]
    made = json.loads(run("new", "alice", *words, "--expires", "30d", "--json").stdout)
    assert made.pop("key").startswith("llmb-")
    assert abs(made.pop("created") - time.time()) < 60 and abs(made.pop("expires") - time.time() - 30 * DAY) < 60
    assert made == {
        "name": "alice", "state": "active", "models": ["base", "mine"], "requests_per_minute": None, "tokens_per_minute": 1000,
        "concurrent": 2, "tokens_per_day": 5000, "requests_today": 0, "tokens_today": 0, "last_used": None,
    }  # fmt: skip


def test_the_list_shows_limits_what_was_spent_and_the_state(home: Path) -> None:
    assert run("list").stdout == "No keys yet. Make one: llmbench keys new NAME\n"
    assert listed() == [] and not (home / "keys.sqlite").exists()
    run("new", "alice", "--requests-per-minute", "60", "--tokens-per-day", "5000", "--model", "base")
    run("new", "bob")
    run("new", "carol")
    run("revoke", "carol")
    store = KeyStore(home / "keys.sqlite")
    today = int(time.time() // DAY)
    store.db.execute("INSERT INTO accounts VALUES ('alice', 0, 0, ?, ?, 3, 1234)", (time.time(), today))
    store.db.execute("INSERT INTO accounts VALUES ('bob', 0, 0, 1, ?, 3, 1234)", (today - 5,))
    store.close()
    heading, alice, bob, carol = run("list").stdout.splitlines()
    assert heading.split() == ["key", "state", "limits", "models", "tokens", "today", "requests", "last", "used", "expires"]
    minute = time.strftime("%Y-%m-%d", time.localtime())
    assert re.search(rf"^alice +active +60 requests/min, 5,000 tokens/day +base +1,234 +3 +{minute} \d\d:\d\d +- *$", alice)
    assert re.search(r"^bob +active +- +all +0 +0 +- +- *$", bob), "what was spent on another day, before it was made"
    assert carol.split()[:2] == ["carol", "revoked"]


def test_a_change_leaves_what_it_does_not_name(home: Path) -> None:
    run("new", "alice", "--requests-per-minute", "60", "--tokens-per-day", "5000", "--model", "base", "--expires", "2099-12-31")
    before = listed()[0]
    assert before["expires"] == 4102444800, "the end of that day of UTC"
    assert run("change", "alice", "--tokens-per-day", "none", "--concurrent", "3").stdout == "Changed key alice.\n"
    assert listed()[0] == before | {"tokens_per_day": None, "concurrent": 3}
    run("change", "alice", "--model", "none", "--expires", "none")
    assert listed()[0] == before | {"tokens_per_day": None, "concurrent": 3, "models": None, "expires": None}


def test_a_revoked_key_may_be_replaced(home: Path) -> None:
    first = run("new", "alice").stdout
    assert "To replace it: llmbench keys new alice" in run("revoke", "alice").stdout
    assert listed()[0]["state"] == "revoked"
    assert run("new", "alice").stdout != first and listed()[0]["state"] == "active"


def test_another_file_may_be_named(home: Path) -> None:
    made = run("new", "alice", "--file", "team.sqlite")
    assert "gateway.keys: team.sqlite" in made.stderr and listed() == []
    assert "alice" in run("list", "--file", "team.sqlite").stdout
    run("change", "alice", "--file", "team.sqlite", "--concurrent", "1")
    run("revoke", "alice", "--file", "team.sqlite")
    assert json.loads(run("list", "--file", "team.sqlite", "--json").stdout)[0]["state"] == "revoked"


def test_the_keys_of_a_serving_document_are_listed(home: Path) -> None:
    run("new", "alice")
    run("new", "bob", "--file", "team.sqlite")
    for keys, name in (("true", "alice"), ("team.sqlite", "bob")):
        (home / "serve.yaml").write_text(f"variants: [{{name: base}}]\ngateway: {{keys: {keys}}}\n", encoding="utf-8")
        found = json.loads(run("list", "--from", "serve.yaml", "--json").stdout)
        assert [one["name"] for one in found] == [name]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["new", "alice", "--requests-per-minute", "0"], r"--requests-per-minute '0' is not a limit"),
        (["new", "alice", "--tokens-per-day", "many"], r"--tokens-per-day 'many' is not a limit. Give a whole number"),
        (["new", "alice", "--concurrent", "-1"], r"--concurrent '-1' is not a limit"),
        (["new", "alice", "--tokens-per-day", "9" * 30], r"is not a limit"),
        (["new", "alice", "--expires", "soon"], r"--expires 'soon' is not a time. Give days \(30d\)"),
        (["new", "alice", "--expires", "2020-01-01"], r"--expires 2020-01-01 has passed"),
        (["new", "alice", "--expires", "9999-12-31"], r"--expires '9999-12-31' is not a time"),
        (["new", "alice", "--expires", "0d"], r"--expires 0d has passed"),
        (["new", "alice", "--model", "Not A Name"], r"--model 'Not A Name' is not allowed"),
        (["new", "Alice"], r"key name 'Alice' is not allowed"),
        (["change", "alice"], r"Nothing to change. Name a limit"),
        (["change", "alice", "--concurrent", "1"], r"Key 'alice' does not exist: there are no keys yet"),
        (["revoke", "alice"], r"Key 'alice' does not exist: there are no keys yet"),
        (["list", "--from", "serve.yaml"], r"serve\.yaml: it has no named keys\. Set gateway\.keys: true"),
        (["list", "--from", "serve.yaml", "--file", "a.sqlite"], r"leave out --file and --limits-in"),
        (["list", "--from", "serve.yaml", "--limits-in", "redis://h"], r"leave out --file and --limits-in"),
        (["list", "--from", "missing.yaml"], r"missing\.yaml: no such file"),
    ],
)
def test_what_cannot_be_is_said_in_one_line_and_makes_nothing(home: Path, words: list[str], problem: str) -> None:
    (home / "serve.yaml").write_text("variants: [{name: base}]\n", encoding="utf-8")
    with pytest.raises(LlmbenchError, match=problem) as caught:
        run(*words)
    assert "\n" not in str(caught.value)
    assert not (home / "keys.sqlite").exists() or listed() == []
