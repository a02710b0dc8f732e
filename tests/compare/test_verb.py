from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.cli.main import main
from llmbench.recipe import CompareRecipe


def command(tmp_path: Path, server: Any, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "llmbench", "compare", str(tmp_path / "compare.yaml"),
        f"endpoint.base_url={server.base_url}", "concurrency=2", *more,
    ]  # fmt: skip


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; gives exit code, stdout and stderr."""

    def run(*more: str, verb: list[str] | None = None) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["llmbench", *(verb or command(tmp_path, server)[3:]), *more])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


@pytest.fixture(autouse=True)
def written(document: Callable[..., CompareRecipe]) -> None:
    document()


def test_people_get_tables_the_verdict_and_the_paths(tmp_path: Path, server: Any, here: Run) -> None:
    code, out, err = here()
    assert (code, err.splitlines()[-1]) == (0, "Asking: 64 of 64")
    assert "adapter-rag - base-rag" in out
    assert "adapter-rag is correct more often than base: +100.0 points" in out
    assert f"Report   {tmp_path / 'outputs' / 'comparisons' / 'kettles' / 'report.html'}" in out
    assert here()[0] == 0
    assert len(server.handler.asked) == 64


def test_programs_get_one_json_document(here: Run) -> None:
    _, out, _ = here("--json", "questions.limit=4")
    values = json.loads(out)
    assert values["estimates"]["grounded"]["adapter-rag"]["n"] == 4
    assert Path(values["files"]["report"]).exists()
    _, out, _ = here(verb=["comparisons", "--json"])
    assert [one["name"] for one in json.loads(out)] == ["kettles"]


def test_comparisons_are_listed_with_their_verdicts(here: Run) -> None:
    assert "No comparisons yet. Make one: llmbench compare" in here(verb=["comparisons"])[1]
    here()
    assert here(verb=["comparisons"])[1].startswith("kettles: adapter-rag is correct more often than base")


def test_one_comparison_is_shown_by_its_name(tmp_path: Path, server: Any, here: Run) -> None:
    _, shown, _ = here(verb=[*command(tmp_path, server)[3:5], "--url", server.base_url])
    assert here(verb=["comparisons", "kettles"])[1] == shown
    assert json.loads(here(verb=["comparisons", "kettles", "--json"])[1])["name"] == "kettles"
    code, out, err = here(verb=["comparisons", "kettle"])
    assert (code, out) == (2, "") and "There is no finished comparison kettle (available: kettles)." in err


def test_a_comparison_is_removed_and_files_of_somebody_else_keep_it(tmp_path: Path, here: Run) -> None:
    here("questions.limit=4")
    folder = tmp_path / "outputs" / "comparisons" / "kettles"
    assert here(verb=["comparisons", "open", "kettles"])[1] == f"{folder / 'report.html'}\n"
    (folder / "notes.txt").write_text("mine", encoding="utf-8")
    code, _, err = here(verb=["comparisons", "rm", "kettles", "--yes"])
    assert code == 2 and "notes.txt" in err and (folder / "summary.json").exists()
    (folder / "notes.txt").unlink()
    assert here(verb=["comparisons", "rm", "kettles"])[0] == 2, "nobody can be asked"
    assert here(verb=["comparisons", "rm", "kettles", "--yes"])[1] == "Removed comparison kettles.\n"
    assert not folder.exists()
    assert "There is no comparison kettles" in here(verb=["comparisons", "rm", "kettles", "--yes"])[2]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopped_midway_it_goes_on_from_there(tmp_path: Path, server: Any, here: Run, how: signal.Signals) -> None:
    server.handler.delay = 0.1
    process = subprocess.Popen(command(tmp_path, server), stderr=subprocess.PIPE, text=True)
    answers = tmp_path / "outputs" / "comparisons" / "kettles" / "answers.jsonl"
    deadline = time.monotonic() + 30
    while not (answers.exists() and answers.read_bytes().count(b"\n") >= 6) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(how)
    _, told = process.communicate(timeout=30)
    kept = answers.read_bytes().count(b"\n")
    assert 6 <= kept < 64
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert f"{kept} of 64 answers are saved. Run the same command again to continue." in told
    assert not (answers.parent / "summary.json").exists()
    server.handler.delay = 0.0
    server.handler.asked.clear()
    code, _, told = here()
    assert code == 0
    assert f"({kept} reused)" in told
    assert len(server.handler.asked) == 64 - kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "variants=[base, adaptor]",
            "The endpoint has no variant adaptor. Did you mean adapter? It lists: base, base-rag, adapter,",
        ),
        ("questions.split=dev", "no question has split 'dev' (splits in the file: test). Name one of them, or no split."),
        ("metric=[grounded]", "metric is not a field. Did you mean metrics?"),
        ("endpoint.base_url=127.0.0.1:8000", "'127.0.0.1:8000' is not a URL. Give one such as http://127.0.0.1:8000/v1"),
        ("endpoint.base_url=http://127.0.0.1:1/v1", "No endpoint answers at http://127.0.0.1:1/v1. Start one: llmbench serve"),
    ],
)
def test_bad_input_is_one_line_and_code_2(here: Run, change: str, message: str) -> None:
    code, out, err = here(change)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert message in err


def test_a_variant_that_fails_is_named_and_the_others_are_shown(
    server: Any, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = server.handler.do_POST

    def do_post(self: Any) -> None:
        if self.peek()["model"] == "base":
            self.send_error(500)
        else:
            calm(self)

    def peek(self: Any) -> Any:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.rfile = io.BytesIO(body)
        return json.loads(body)

    monkeypatch.setattr(server.handler, "do_POST", do_post)
    monkeypatch.setattr(server.handler, "peek", peek, raising=False)
    code, out, err = here("questions.limit=6")
    assert code == 2
    assert "adapter-rag - base-rag" in out and "Report   " in out
    assert re.search(r"^base answered no question: .* answered 500", err, re.MULTILINE)
    assert "Traceback" not in err


def test_at_80_columns_no_figure_is_broken(
    here: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbench import compare
    from llmbench.cli.compare import show

    here()
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    show(compare.load("kettles"))
    lines = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()
    assert max(map(len, lines[:-3])) <= 80  # the last three are paths
    for heading in ("difference", "interval", "p (Holm)", "wins", "shown", "variant", "mean"):
        assert any(heading in line.split("  ") or f" {heading} " in line for line in lines), heading
    assert all(line.count("[") == line.count("]") for line in lines if "points" in line or "%" in line)


def test_a_replay_says_whether_the_same_answers_come(here: Run, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("variants=[base, adapter]", "questions.limit=4")
    here(*few)
    code, out, _ = here(*few, "--replay")
    assert (code, out.splitlines()[-1]) == (0, "Every answer came again.")
    assert "log-probabilities were not kept (logprobs: true keeps them)" in out
    monkeypatch.setattr("tests.compare.conftest.say", lambda variant, question: "It weighs 8 grams [1].")
    code, out, _ = here(*few, "--replay")
    assert (code, out.splitlines()[-1]) == (1, "8 answers came otherwise.")
    assert "base: first difference at character 11 of the answer to q0" in out
    code, out, _ = here(*few, "--replay", "--json")
    assert (code, json.loads(out)["holds"]) == (1, False)
    assert here(*few, "--replay", "--fresh")[0] == 2
