"""`llmbench gate` as a person and a CI system run it, against real HTTP."""

from __future__ import annotations

import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench.cli.main import main
from llmbench.recipe import CompareRecipe

Run = Callable[..., tuple[int, str, str]]
FAR = ["--baseline", "adapter", "--candidate", "adapter-rag"]


@pytest.fixture(autouse=True)
def written(document: Callable[..., CompareRecipe]) -> None:
    document()


@pytest.fixture
def run(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the verb in this process; gives exit code, stdout and stderr."""

    def gate(*more: str) -> tuple[int, str, str]:
        begin = ["llmbench", "gate", str(tmp_path / "compare.yaml"), f"endpoint.base_url={server.base_url}"]
        monkeypatch.setattr(sys, "argv", [*begin, *more])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return gate


def test_it_asks_what_is_missing_and_passes_what_is_not_worse(tmp_path: Path, server: Any, run: Run) -> None:
    code, out, err = run(*FAR, "--margin", "0.02")
    assert code == 0 and err.splitlines()[-1] == "Asking: 64 of 64"
    assert "adapter-rag is not worse than adapter by 2.0 points or more: Correct and cited +100.0 points [" in out
    assert "Paired by question; a candidate that is worse by just the margin passes in at most 2.5% of gates." in out
    assert "too few to cluster" in out
    assert len(server.handler.asked) == 64
    assert run(*FAR, "--margin", "0.02")[0] == 0
    assert len(server.handler.asked) == 64, "a second gate asks nothing"


def test_worse_is_1_and_undecided_is_3_with_the_number_that_it_takes(run: Run) -> None:
    code, out, _ = run("--baseline", "adapter-rag", "--candidate", "base", "--margin", "0.02")
    assert code == 1 and "base is worse than adapter-rag by more than 2.0 points: Correct and cited -100.0 points [" in out
    code, out, _ = run("--baseline", "base", "--candidate", "adapter", "--margin", "0.02")
    assert code == 3 and "Undecided whether adapter is worse by 2.0 points than base: " in out
    assert "more questions would decide with a power of 80% if the two are truly alike and differ on 6.2% of questions." in out
    assert run("--baseline", "adapter", "--candidate", "adapter-rag", "--superior")[0] == 0
    assert run("--baseline", "base", "--candidate", "adapter", "--superior")[0] == 3


def test_programs_get_one_json_document_and_ci_gets_its_files(tmp_path: Path, run: Run) -> None:
    code, out, _ = run(
        "--baseline", "base", "--candidate", "adapter", "--metric", "grounded=0.02", "--metric", "latency=500%",
        "--json", "--markdown", "comment.md", "--junit", "gate.xml",
    )  # fmt: skip
    values = json.loads(out)
    assert code == 3 == values["code"] and values["outcome"] == "undecided"
    assert [one["outcome"] for one in values["metrics"]] == ["undecided", "not tested"]
    assert values["metrics"][0]["needed"]["alike"] > 16 and values["metrics"][0]["n"] == 16
    comment = (tmp_path / "comment.md").read_text(encoding="utf-8")
    assert comment.startswith("<!-- llmbench:gate:kettles -->\n### ❔ Undecided")
    assert comment.count("\n| ") == 4 and "| ❔ undecided |" in comment and "not tested |" in comment
    assert "a fixed sequence, each judged only if all before it are shown" in comment
    suite = ET.parse(tmp_path / "gate.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "1")
    failed = suite.find("testsuite/testcase/failure")
    assert failed is not None and failed.get("type") == "undecided" and "more questions" in str(failed.get("message"))
    assert run("--baseline", "base", "--candidate", "adapter", "--margin", "0.9", "--markdown", "comment.md")[0] == 0
    assert "### ✅ adapter is not worse" in (tmp_path / "comment.md").read_text(encoding="utf-8")


def test_several_metrics_may_be_corrected_by_holm(run: Run) -> None:
    code, out, _ = run(*FAR, "--margin", "0.1", "--metric", "grounded", "--metric", "contains_value", "--several", "holm")
    assert code == 0 and "Several metrics: all must be shown, by p-values after Holm's correction." in out and "p (Holm)" in out


def test_a_finished_comparison_is_judged_without_an_endpoint(tmp_path: Path, server: Any, run: Run) -> None:
    gone = "endpoint.base_url=http://127.0.0.1:1/v1"
    code, _, err = run(*FAR, "--margin", "0.02", "--finished", gone)
    assert code == 2 and "There is no finished comparison kettles" in err
    assert run(*FAR, "--margin", "0.02")[0] == 0
    assert run(*FAR, "--margin", "0.02", "--finished", gone)[0] == 0
    for change, other in (
        ("questions.limit=8", "questions"), ("max_tokens=9", "max_tokens"), ("variants=[adapter,adapter-rag]", "variants"),
        ("metrics=[squad_f1]", "metrics (squad_f1 not measured)"), ("abstention=Ada", "abstention"),
    ):  # fmt: skip
        code, _, err = run(*FAR, "--margin", "0.02", "--finished", gone, change)
        assert code == 2 and f"the finished comparison has other {other} than" in err
    assert run(*FAR, "--margin", "0.02", gone)[0] == 2


def test_a_saved_baseline_stands_for_a_variant(tmp_path: Path, server: Any, run: Run) -> None:
    code, out, _ = run("--candidate", "adapter", "--save-baseline", "main.json")
    assert (code, out.splitlines()[-1]) == (0, "Saved adapter, 16 questions, as a baseline: main.json")
    saved = json.loads((tmp_path / "main.json").read_text(encoding="utf-8"))
    assert len(saved["values"]["grounded"]) == len(saved["questions"]) == 16 and saved["versions"]["llmbench"]
    asked = len(server.handler.asked)
    code, out, _ = run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02")
    assert code == 0 and len(server.handler.asked) == asked
    assert f"The baseline is adapter as of {saved['saved']}, from main.json." in out
    assert (
        run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02", "--save-baseline", "main.json")[0] == 0
    )
    assert json.loads((tmp_path / "main.json").read_text(encoding="utf-8"))["variant"] == "adapter-rag"
    assert run("--baseline", "main.json", "--candidate", "base", "--margin", "0.02", "--save-baseline", "main.json")[0] == 1
    assert json.loads((tmp_path / "main.json").read_text(encoding="utf-8"))["variant"] == "adapter-rag", "worse saves nothing"
    out = run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02")[1]
    assert "Baseline and candidate are the same model with the same adapter and the same documents." in out


STALE: list[tuple[Callable[[Any], dict[str, Any]], list[str], str]] = [
    (lambda s: {"questions": s["questions"] | {"q3": "0" * 16}}, [], "1 of its 16 questions is another now (q3)"),
    (lambda s: {}, ["questions.limit=8"], "8 of its 16 questions are not asked any more (q1, q11, q3, ...)"),
    (lambda s: {"definitions": s["definitions"] | {"grounded": "0"}}, [], "grounded is defined otherwise now"),
    (lambda s: {}, ["abstention=Ada"], "grounded is defined otherwise now"),
    (lambda s: {}, ["max_tokens=32"], "max_tokens was 64 and is 32"),
    (lambda s: {}, ["concurrency=3", "--metric", "latency=10%"], "concurrency was 8 and is 3"),
    (lambda s: {}, ["metrics=[grounded,squad_f1]", "--metric", "squad_f1"], "it has no squad_f1"),
]
DAMAGED: list[tuple[Callable[[Any], dict[str, Any]], str]] = [
    (lambda s: {"values": s["values"] | {"grounded": {"q1": 3.0}}}, "grounded has values that it cannot have"),
    (lambda s: {"values": s["values"] | {"latency": {"q1": float("nan")}}}, "latency has values that it cannot have"),
    (lambda s: {"values": s["values"] | {"grounded": {"q99": 1.0}}}, "values of questions that it does not name"),
    (lambda s: {"values": {}}, "no values in it"),
    (lambda s: {"definitions": {}}, "has no definition"),
    (lambda s: {"more": 1}, "not a baseline of llmbench"),
    (lambda s: {"llmbench_baseline": 9}, "a baseline of format 9, and this llmbench reads 1. Update llmbench."),
]


def test_a_stale_baseline_is_told_in_one_line_and_refused_before_anything_is_asked(
    tmp_path: Path, server: Any, run: Run
) -> None:
    run("--candidate", "adapter", "--save-baseline", "main.json")
    fresh = json.loads((tmp_path / "main.json").read_text(encoding="utf-8"))
    server.handler.asked.clear()
    for change, more, told in STALE:
        (tmp_path / "main.json").write_text(json.dumps(fresh | change(fresh)), encoding="utf-8")
        code, out, err = run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02", *more)
        (error,) = err.splitlines()
        assert (code, out) == (2, "") and "main.json is stale: " in error and told in error
        assert "--candidate adapter --save-baseline main.json" in error, "it says how it is saved again"
    for change, told in DAMAGED:
        (tmp_path / "main.json").write_text(json.dumps(fresh | change(fresh)), encoding="utf-8")
        code, out, err = run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02")
        assert (code, out, len(err.splitlines())) == (2, "", 1) and told in err
    assert server.handler.asked == []


def test_questions_that_were_only_added_are_left_out_and_said_so(tmp_path: Path, run: Run) -> None:
    run("--candidate", "adapter", "--save-baseline", "main.json")
    with (tmp_path / "questions.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "new", "question": "How heavy is kettle 99?", "value": "300 grams", "source": "kettle.md"}\n')
    code, out, _ = run("--baseline", "main.json", "--candidate", "adapter-rag", "--margin", "0.02")
    assert code == 0 and "1 question was added since (new) and left out: only questions that both answered are compared." in out
    assert "grounded has a value for both variants in 16 of 17 questions" in out


def test_answers_that_are_missing_are_no_pass(server: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calm = server.handler.do_POST

    def fails(self: Any) -> None:
        body = self.rfile.peek(int(self.headers["Content-Length"]))
        if b"kettle 3" in body and b'"adapter-rag"' in body:
            self.send_error(500)
        else:
            calm(self)

    monkeypatch.setattr(server.handler, "do_POST", fails)
    code, out, err = run(*FAR, "--margin", "0.02")
    assert (code, out) == (2, "") and "adapter-rag did not answer 2 of 16 questions: q3, u3 (" in err
    left = "preregistration={metric: grounded, margin: 0.02, exclude: [{ids: [q3, u3], reason: the server fails}]}"
    code, out, _ = run(*FAR, left)
    assert code == 0 and "2 questions were left out: the server fails" not in out
    assert "Deviation: It was registered when 64 answers were there already." not in out


def test_a_preregistration_says_all_and_what_is_other_is_told(run: Run) -> None:
    plan = "preregistration={metric: grounded, margin: 0.02, baseline: adapter, candidate: adapter-rag}"
    assert run(plan)[0] == 0
    code, out, _ = run(plan, "--margin", "0.2", "--candidate", "base")
    assert code == 3 or code == 0
    assert "Deviation: The gate's margin is 0.2; registered was 0.02." in out
    assert "Deviation: The gate's candidate is base; registered was adapter-rag." in out
    assert "Deviation: The gate is about citation; registered was grounded." in run(plan, "--metric", "citation=0.1")[1]


def test_a_sequential_comparison_is_judged_by_its_own_bounds(run: Run) -> None:
    plan = "preregistration={metric: grounded, margin: 0.02, baseline: adapter, candidate: adapter-rag, stop: sequential}"
    code, out, _ = run(plan, "--json")
    values = json.loads(out)
    assert code == 0 and values["sequential"] and values["metrics"][0]["p"] is None and values["metrics"][0]["n"] < 16
    code, _, err = run(plan, "--metric", "latency=10%")
    assert code == 2 and "was asked sequentially, until grounded of adapter-rag and adapter was decided" in err
    assert run(plan, "--finished")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--margin", "0.02"], "What is it compared with? Name one with --baseline: a variant (base, base-rag, adapter,"),
        (["--baseline", "old", "--margin", "0.02"], "--baseline: old is neither a variant of the recipe (base,"),
        (["--baseline", "base", "--margin", "0.02"], "Which variant is judged? Name one with --candidate: base-rag, adapter,"),
        (["--baseline", "base", "--candidate", "base", "--margin", "0.02"], "base is the baseline and the candidate."),
        (["--baseline", "base", "--candidate", "best", "--margin", "0.02"], "There is no variant best in"),
        (FAR, "By how much may grounded be worse? Say so beforehand: --margin 0.02"),
        ([*FAR, "--margin", "-1"], "--margin: '-1' is no margin: write a number such as 0.02"),
        ([*FAR, "--margin", "2"], "margin of grounded: it lies between 0 and 1. Write 0.02 for 2 points, not 2."),
        ([*FAR, "--metric", "bleu=0.1"], "does not measure bleu (it does: grounded,"),
        ([*FAR, "--metric", "squad_f1=0.1"], "does not measure squad_f1 (it does: grounded,"),
        ([*FAR, "--metric", "grounded=0.1", "--metric", "latency"], "By how much may latency be worse? Say so beforehand"),
        ([*FAR, "--superior", "--margin", "0.1"], "--superior asks for better than the baseline: leave out the margins."),
        ([*FAR, "--margin", "0.1", "--markdown", "one", "--junit", "one"], "need files of their own"),
        ([*FAR, "--margin", "0.1", "--markdown", "questions.jsonl"], "already exists and was not written by llmbench"),
        ([*FAR, "--margin", "0.1", "--junit", "questions.jsonl"], "already exists and was not written by llmbench"),
        (["--candidate", "base", "--save-baseline", "questions.jsonl"], "already exists and was not written by llmbench"),
        (["--baseline", "questions.jsonl", "--candidate", "base", "--margin", "0.1"], "not a baseline of llmbench"),
        ([*FAR, "--margin", "0.1", "--save-baseline", "."], "cannot be written (Is a directory)"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_one_line_and_code_2(server: Any, run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert told in err
    assert server.handler.asked == [], "nothing was asked for it"


def test_names_that_hold_markup_are_inert_in_the_comment(run: Run) -> None:
    from llmbench.gate.outputs import _inert

    assert _inert("<img src=x> @team `a` [b](c) *d*") == ("&lt;img src=x&gt; @\u200bteam \\`a\\` \\[b\\](c) \\*d\\*")
