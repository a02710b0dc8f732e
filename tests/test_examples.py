"""The programs in examples/, run as their first lines say, in a folder of their own."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from tests import warm

from llmbench.gateway import Catalogue, build, listening
from llmbench.gateway import Served as ServedVariant
from llmbench.gateway.feedback import Feedback, Feedbacks
from llmbench.gateway.limit import Open
from llmbench.gateway.relay import Upstream
from llmbench.recipe import ServeRecipe, Variant

from .conftest import PAGES, Served

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(name: str, *arguments: str, folder: Path, stdin: str = "", imported: str | None = None) -> str:
    """What a program prints; it must end well. `imported` is what its process has imported before, of `warm.PACKAGES`."""
    program = ROOT / "examples" / name
    if imported is not None:
        done = warm.run(imported, program.read_text(encoding="utf-8"), *arguments, cwd=folder, timeout=280)
    else:
        command = [sys.executable, str(program), *arguments]
        done = subprocess.run(command, cwd=folder, input=stdin, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A folder of three pages."""
    folder = tmp_path / "pages"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def questions(folder: Path) -> Path:
    """Three questions, each answered by one page."""
    rows = [
        {"id": "q1", "question": "How heavy is the Alba kettle?", "value": "300 grams", "source": "kettle.md"},
        {"id": "q2", "question": "What is the Borin lamp made of?", "value": "brass", "source": "lamp.md"},
        {"id": "q3", "question": "How long do refunds take?", "value": "14 days", "source": "refunds.md"},
    ]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.stem)
def test_a_program_is_short_says_how_to_run_it_and_is_listed(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 50
    assert f"python examples/{program.name}" in (ast.get_docstring(ast.parse(text)) or "")
    assert f"(../examples/{program.name})" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_train_adapter_lowers_the_loss_and_leaves_an_adapter(tmp_path: Path, home: Path) -> None:
    rows = [{"prompt": f"What is the code of the Alba {i % 7}?", "completion": f"The code is AB-{i % 7}."} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    printed = run("train_adapter.py", "rows.jsonl", "mine", "--steps", "8", folder=tmp_path, imported="training")
    losses = re.search(r"loss ([\d.]+) -> ([\d.]+) in 8 steps", printed)
    assert losses is not None and float(losses.group(2)) < float(losses.group(1))
    assert (home / "runs" / "mine" / "adapter" / "adapter_model.safetensors").exists()


def test_search_folder_finds_the_page_and_reads_only_what_is_new(tmp_path: Path, pages: Path) -> None:
    first = run("search_folder.py", str(pages), "When is my money paid back?", folder=tmp_path)
    assert first.startswith("3 added, 0 changed, 0 removed, 0 unchanged\n1. refunds.md:")
    (pages / "lamp.md").write_text("# Borin lamp\n\nThe Borin lamp is made of glass.\n", encoding="utf-8")
    second = run("search_folder.py", str(pages), "What is the lamp made of?", "--top-k", "1", folder=tmp_path)
    assert second.startswith("0 added, 1 changed, 0 removed, 2 unchanged\n1. lamp.md:")
    assert "made of glass" in second and "2. " not in second


def test_evaluate_pipeline_gives_a_figure_for_each_way_of_searching(tmp_path: Path, pages: Path) -> None:
    (tmp_path / "pages.yaml").write_text("name: pages\ndocuments: [pages]\n", encoding="utf-8")
    printed = run("evaluate_pipeline.py", "pages.yaml", str(questions(pages.parent)), folder=tmp_path).splitlines()
    assert printed[0] == "3 questions, 3 documents"
    assert [line.partition(":")[0] for line in printed[1:]] == ["dense", "terms", "fused"]
    assert "fused: nDCG@10 1.000" in printed[3] and printed[3].endswith("(the pipeline as it is)")


@pytest.mark.slow
def test_serve_and_ask_answers_with_and_without_passages(tmp_path: Path) -> None:
    printed = run("serve_and_ask.py", "How heavy is the Bergaba camera?", folder=tmp_path).splitlines()
    assert printed[0].startswith("plain: ") and printed[1].startswith("grounded: ")
    assert len(printed[1]) > len("grounded: ")
    assert "  [1] products/bergaba-camera.md" in printed[2:]


def test_compare_variants_prints_shares_and_a_verdict(tmp_path: Path, endpoint: Served, home: Path) -> None:
    asked = [str(questions(tmp_path)), "base", "base-rag", "--url", endpoint.base_url]
    printed = run("compare_variants.py", *asked, folder=tmp_path).splitlines()
    assert [line.partition(":")[0] for line in printed[:2]] == ["base", "base-rag"]
    assert all("of 3 answers have the value [" in line for line in printed[:2])
    assert printed[-1] == f"report: {home / 'comparisons' / 'base-vs-base-rag' / 'report.html'}"
    assert (home / "comparisons" / "base-vs-base-rag" / "report.html").exists()


def test_stream_chat_answers_each_line_and_lists_the_sources(tmp_path: Path, endpoint: Served) -> None:
    asked = "How heavy is the Alba kettle?\nAnd the lamp?\n"
    printed = run("stream_chat.py", "base-rag", "--url", endpoint.base_url, folder=tmp_path, stdin=asked)
    assert printed.count("[1] ") == 2 and "kettle.md" in printed


def test_judge_answers_scores_what_was_captured_and_has_no_score_yet(tmp_path: Path) -> None:
    said: list[Feedback] = []
    choice = {"index": 0, "message": {"role": "assistant", "content": "Score: 8/10"}, "finish_reason": "stop"}
    answer = httpx.Response(200, json={"model": "base", "choices": [choice], "usage": {}})
    document = ServeRecipe.model_validate({"variants": [{"name": "base"}], "gateway": {"port": 0}})
    upstream, open = Upstream(httpx.MockTransport(lambda _: answer), lambda: None), Open(100)
    catalogue = Catalogue([ServedVariant(Variant(name="base"), "base", {})], context=1024)
    app = build(catalogue, upstream, open=open, feedbacks=Feedbacks([said.append]))
    asked = {"model": "base", "messages": [{"role": "user", "content": "How heavy is the Alba kettle?"}]}
    with listening.listener_of(document) as listener, listening.answering(app, listener, document, upstream, open, None):
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        ids = [httpx.post(f"{url}/chat/completions", json=asked).headers["x-request-id"] for _ in range(2)]
        lines = [
            {"request": id, "messages": asked["messages"], "sources": None, "answer": "300 grams.", "judge": judge}
            for id, judge in ((ids[0], None), (ids[1], 0.5), ("before", None))
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        printed = run("judge_answers.py", "rows.jsonl", "--by", url, "--model", "base", "--url", url, folder=tmp_path)
    assert [(one.request.id, one.metric, one.value) for one in said] == [(ids[0], "judge", 0.8)]
    assert "before: " in printed and "answered 404: No request" in printed and printed.endswith("1 of 2 answers scored\n")


@pytest.mark.parametrize("program", EXAMPLES, ids=lambda path: path.stem)
def test_a_program_imports_only_the_faces_of_rooms(program: Path) -> None:
    """What a stranger copies must not lean on a file that may move: `llmbench.retrieval`, not `llmbench.retrieval.search`."""
    tree = ast.parse(program.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert [name for name in modules if name.startswith("llmbench.") and name.count(".") > 1] == []
