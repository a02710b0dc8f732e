"""A writer killed at random moments: whatever was committed is there, nothing is half, and the next writer goes on."""

from __future__ import annotations

import random
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench.recipe import ChunkingSpec, RagRecipe, SourceSpec
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import Index
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import verify
from llmbench.retrieval.store.words import postings, postings_build

CHILD = Path(__file__).with_name("crash_child.py")
LONG = 12
"""Operations a round."""


def state_after(operations: list[tuple[str, Any]], before: dict[str, str]) -> list[dict[str, str]]:
    """What the index must hold before and after each operation."""
    states = [dict(before)]
    for kind, what in operations:
        now = dict(states[-1])
        if kind in ("upsert", "change"):
            now |= what
        elif kind in ("delete", "remove"):
            now = {name: text for name, text in now.items() if name not in what}
        states.append(now)
    return states


def held(folder: Path, embedder: Any) -> dict[str, str]:
    """What the index holds; its passages cover each text and their vectors are those of their words."""
    path = current(folder)
    if path is None or not (path / "index.sqlite").exists():
        return {}
    index = Index(path)
    try:
        found = {}
        with index.snapshot():
            if index.get("contract") is None:
                return {}
            for document, chunks in index.documents():
                found[document.source] = document.text
                assert chunks, document.source
                rows = [index._row("SELECT row FROM chunks WHERE id = ?", chunk.id)[0] for chunk in chunks]
                expected = embedder.embed([f"{chunk.title}\n{chunk.text}" for chunk in chunks])
                np.testing.assert_array_equal(index.vectors.take(rows), expected)
        return found
    finally:
        index.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kills", [40, 200])
def test_a_kill_at_any_moment_loses_and_halves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, kills: int
) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    operations = runpy.run_path(str(CHILD))["operations"]
    dice = random.Random(20261126)
    folder, note = tmp_path / "indexes" / "store", tmp_path / "done"
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None and child.stdout is not None

        def run(seed: int, first: int, delay: float) -> str:
            assert child.stdin is not None and child.stdout is not None
            note.unlink(missing_ok=True)
            child.stdin.write(f"{seed} {first} {LONG} {delay}\n")
            child.stdin.flush()
            return child.stdout.readline().strip()

        whole = float(run(0, 0, 60))
        before = state_after(operations(0, LONG), {})[-1]
        assert held(folder, words) == before
        killed, seed, first = 0, 0, LONG
        while killed < kills:
            if first >= LONG:
                seed, first = seed + 1, 0
            outcome = run(seed, first, dice.uniform(0, whole * (LONG - first) / LONG))
            assert outcome != "failed"
            states = state_after(operations(seed, LONG)[first:], before)
            noted = note.read_text().strip() if note.exists() else ""
            count = int(noted) - first if noted else 0
            now = held(folder, words)
            if outcome == "killed":
                killed += 1
                assert now in states[count : count + 2], (seed, first, count)
                count = states.index(now, count)
            else:
                assert now == states[-1]
            assert verify(folder).faults == ()
            before, first = now, first + count
        child.stdin.close()
        assert child.wait(10) == 0
    monkeypatch.setattr(postings_build, "LEAST", 20)
    chunking = ChunkingSpec(max_tokens=12, overlap=2)
    recipe = RagRecipe(name="store", documents=[SourceSpec(path=tmp_path / "pages")], chunking=chunking)
    with Writer.open(recipe, embedder=words) as writer:
        writer.finish()
        named = {plan.file for plan in postings.plans(writer.index.get("postings"))}
        assert named and {path.name for path in writer.index.path.glob("postings*")} == named
    assert {path.name for path in folder.iterdir()} >= {"index.json"}
