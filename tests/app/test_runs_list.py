"""The list of runs and their curves: found, coloured, read once."""

from __future__ import annotations

import importlib
import json
import math
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llmbench.runs import Run

SHEET = Path(__file__).resolve().parents[2] / "app" / "style.css"


@pytest.fixture
def page(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.runs")


@pytest.fixture
def curves(program: ModuleType) -> Any:
    return importlib.import_module("llmbench_app.curves")


def test_runs_are_found_by_words_and_state_and_put_in_order(page: Any) -> None:
    every = {
        "qwen-sft": {"state": "finished", "loss": 1.0, "eval_loss": 1.5},
        "qwen-dpo": {"state": "failed", "loss": 0.5},
        "llama-sft": {"state": "finished", "loss": 2.0, "eval_loss": 1.2},
        "new": {"state": "stopped"},
    }
    assert page._found(every, "SFT", "Any state", "Newest first") == ["qwen-sft", "llama-sft"]
    assert page._found(every, "qwen", "failed", "Newest first") == ["qwen-dpo"]
    assert page._found(every, "", "Any state", "Name") == ["llama-sft", "new", "qwen-dpo", "qwen-sft"]
    assert page._found(every, "", "Any state", "Lowest loss") == ["qwen-dpo", "llama-sft", "qwen-sft", "new"]
    diverged = {"nan": {"state": "failed", "loss": math.nan}, **every, "inf": {"state": "failed", "loss": -math.inf}}
    assert page._found(diverged, "", "Any state", "Lowest loss")[:3] == ["qwen-dpo", "llama-sft", "qwen-sft"]
    assert page._row("qwen-sft", every["qwen-sft"]) == "qwen-sft\nfinished · held-out loss 1.500"
    assert page._row("r", {"state": "running", "step": 8, "steps": 60, "loss": 2}) == "r\nrunning · step 8 of 60 · loss 2.000"


def test_a_run_keeps_its_colour_while_it_is_ticked(page: Any) -> None:
    first = page._coloured(["a", "b", "c"], {})
    assert list(first.values()) == [0, 1, 2]
    second = page._coloured(["new", "c", "a"], first)
    assert (second["a"], second["c"], second["new"]) == (0, 2, 1)
    assert len(set(page._coloured([str(n) for n in range(20)], second).values())) == 20


def test_only_what_was_added_to_a_log_is_read(curves: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path)
    for step in range(1, 4):
        run.log({"step": step, "loss": 1 / step, "note": "x"})
    run.log({"step": 3, "eval_loss": 0.5})
    run.log({"step": 4, "loss": float("nan")})
    found = curves.curves(run)
    assert found.points["loss"] == [(1, 1), (2, 1 / 2), (3, 1 / 3)] and found.points["eval_loss"] == [(3, 0.5)]
    lines: list[bytes] = []
    loads = json.loads

    def counted(line: bytes) -> Any:
        lines.append(line)
        return loads(line)

    monkeypatch.setattr(curves.json, "loads", counted)
    run.log({"step": 5, "loss": 0.1})
    assert curves.curves(run).points["loss"][-1] == (5, 0.1)
    assert len(lines) == 1
    run.drop_metrics_after(2)
    assert curves.curves(run).points["loss"] == [(1, 1), (2, 1 / 2)]


def test_a_run_that_trains_shows_how_far_it_is(program: ModuleType) -> None:
    cards = importlib.import_module("llmbench_app.cards")
    status = {"state": "running", "step": 15, "steps": 60, "seconds_left": 560}
    assert "Step 15 of 60, 25%, 9 min 20 s left" in cards._progress(status)
    assert "left" not in cards._progress(status | {"state": "stopped"})
    assert cards._progress({"state": "running", "step": 3}) == ""


def _lab(colours: list[str], view: str) -> list[tuple[float, float, float]]:
    """CIE Lab of colours as people with a kind of colour vision see them (Machado, Oliveira and Fernandes 2009, severity 1)."""
    seen = {
        "all": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
        "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    }[view]
    found = []
    for colour in colours:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        light = [min(max(sum(a * b for a, b in zip(row, light, strict=True)), 0), 1) for row in seen]
        to_xyz = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
        xyz = [sum(a * b for a, b in zip(row, light, strict=True)) for row in to_xyz]
        x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in (xyz[0] / 0.95047, xyz[1], xyz[2] / 1.08883))
        found.append((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    return found


@pytest.mark.parametrize("view", ["all", "protan", "deutan"])
@pytest.mark.parametrize("theme", [0, 1])
def test_the_colours_of_lines_can_be_told_apart(theme: int, view: str) -> None:
    tokens = re.findall(r"--a: (#\w+);.*?--b: (#\w+);.*?--c: (#\w+);.*?--d: (#\w+);.*?--e: (#\w+);.*?--f: (#\w+);.*?--g: (#\w+);.*?--h: (#\w+);", SHEET.read_text("utf-8"))[theme]  # fmt: skip  # noqa: E501
    lab = _lab(list(tokens), view)
    distances = [sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for i, p in enumerate(lab) for q in lab[:i]]
    assert min(distances) >= 10, "below 10 two colours are hard to tell apart"


def test_a_card_shows_what_is_wrong_as_text(program: ModuleType) -> None:
    """Names of rows are somebody else's words: nothing of them is obeyed."""
    from llmbench.diagnosis import Diagnosis, Finding

    cards = importlib.import_module("llmbench_app.cards")
    one = Finding("loss spike", "warning", "Step 5 stands out.", "Look at them.", ("a.b=1",), rows=("<img src=x>.jsonl:3",))
    shown = cards._findings(Diagnosis("mine", "finished", 9, (one,), ("gradients by layer: not recorded",)))
    assert shown.startswith('<details class="diagnosis" open><summary>Diagnosis: 1 warning</summary>')
    for words in ("<b>loss spike</b>", "Step 5 stands out.", "&lt;img src=x&gt;.jsonl:3", "<code>a.b=1</code>", "not recorded"):
        assert words in shown
    assert "<img" not in shown
    assert "open" not in cards._findings(Diagnosis("mine", "finished", 9, (), ()))
