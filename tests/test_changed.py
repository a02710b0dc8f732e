"""`make check` runs what a change may concern, and no less."""

from __future__ import annotations

import pytest
from tests.changed import ROOT, WORDS, concerns

TESTS = sorted(path for path in (ROOT / "tests").rglob("test_*.py"))


def run(*files: str) -> set[str]:
    """The test files that a change of these files runs."""
    return {path.relative_to(ROOT).as_posix() for path in TESTS if concerns(path, frozenset(files))}


@pytest.mark.parametrize(
    ("file", "runs", "leaves_out"),
    [
        ("src/llmbench/svg/lines.py", ["tests/test_svg.py", "tests/page/test_pages.py", "tests/app/test_stop.py"],
         ["tests/engine/test_command.py", "tests/recipe/test_load.py", "tests/statistics/test_intervals.py"]),
        ("src/llmbench/compare/charts.py", ["tests/compare/test_report.py", "tests/page/test_pages.py"],
         ["tests/retrieval/chunking/test_tables.py", "tests/engine/test_command.py", "tests/training/test_sft.py"]),
        ("src/llmbench/retrieval/chunking/pieces.py", ["tests/retrieval/chunking/test_tables.py", "tests/cli/test_rag.py"],
         ["tests/engine/test_command.py", "tests/training/test_sft.py", "tests/statistics/test_intervals.py"]),
        ("app/page.js", ["tests/app/test_stop.py"], ["tests/cli/test_rag.py", "tests/training/test_sft.py"]),
        ("tests/training/conftest.py", ["tests/training/test_sft.py"], ["tests/engine/test_command.py"]),
        ("tests/engine/test_command.py", ["tests/engine/test_command.py"], ["tests/training/test_sft.py"]),
        ("docs/guide/app.md", sorted(WORDS), ["tests/app/test_stop.py"]),
    ],
)  # fmt: skip
def test_a_change_runs_the_rooms_that_it_may_concern(file: str, runs: list[str], leaves_out: list[str]) -> None:
    found = run(file)
    assert set(runs) <= found and found >= WORDS
    assert not found & set(leaves_out)


@pytest.mark.parametrize("file", ["src/llmbench/errors.py", "pyproject.toml", "tests/conftest.py", "tests/warm.py"])
def test_what_everything_rests_on_runs_everything(file: str) -> None:
    assert len(run(file)) > 0.9 * len(TESTS)


def test_collecting_the_tests_imports_no_heavy_package(collected: set[str]) -> None:
    """Each process that runs tests collects all of them: PyTorch and TRL at the top of one file cost each of them 6 seconds."""
    assert collected == set(), "import them in the fixtures and tests that need them"
