"""Which tests a change concerns: those of the rooms that it touches, and of the rooms that import these, however indirectly."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "llmbench"
EVERYTHING = ("pyproject.toml", "tests/conftest.py", "tests/changed.py", "tests/warm.py")
"""Files that every test depends on."""
WORDS = {"tests/test_documents.py", "tests/test_layers.py", "tests/test_locks.py", "tests/test_words.py"}
"""Tests that read the whole project, and are quick: they always run."""


@cache
def files(base: str) -> frozenset[str] | None:
    """The files that differ from where this branch left `base`, those not committed included; None where git cannot say."""
    found: set[str] = set()
    for command in (["diff", "--name-only", f"{base}...HEAD"], ["status", "--porcelain", "--no-renames"]):
        done = subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return None
        found |= {line[3:] if command[0] == "status" else line for line in done.stdout.splitlines()}
    return frozenset(found)


def room(path: Path) -> str:
    """`src/llmbench/recipe/train.py` -> recipe, `src/llmbench/demo.py` -> demo, `app/main.py` -> app."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py") if path.is_relative_to(PACKAGE) else "app"


_IMPORT = re.compile(
    r"^[ \t]*(?:from|import)[ \t]+llmbench(?:\.(\w+)|[ \t]+import[ \t]+(?:\(([^)]*)\)|([^\n(]*)))", re.MULTILINE
)
"""Parsing 900 files takes seconds in each process that collects tests."""


@cache
def imported(path: Path) -> frozenset[str]:
    """The rooms that a file imports, in programs within its strings too."""
    found = set()
    for room_, many, few in _IMPORT.findall(path.read_text(encoding="utf-8")):
        found |= {room_} if room_ else set(re.findall(r"(?:^|,)\s*(\w+)", re.sub("#.*", "", many or few)))
    return frozenset(found)


@cache
def below() -> dict[str, frozenset[str]]:
    """For each room the rooms that it imports, also through others; itself among them."""
    direct: dict[str, set[str]] = {}
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "app").rglob("*.py")]:
        direct.setdefault(room(path), set()).update(imported(path))
    reached = {}
    for name in direct:
        seen, waiting = {name}, [name]
        while waiting:
            new = direct.get(waiting.pop(), set()) - seen
            seen |= new
            waiting += new
        reached[name] = frozenset(seen)
    return reached


def concerns(test: Path, changed: frozenset[str]) -> bool:
    """Whether a test file may turn out otherwise for a change of these files."""
    name = test.relative_to(ROOT).as_posix()
    if name in WORDS or name in changed or changed & set(EVERYTHING):
        return True
    if any(one.startswith(f"{test.parent.relative_to(ROOT).as_posix()}/") for one in changed if one.startswith("tests/")):
        return True  # what a folder's tests share
    touched = {room(ROOT / one) for one in changed if one.startswith(("src/llmbench/", "app/"))}
    if any(one.startswith(("recipes/", "rag/")) for one in changed):
        touched.add("assets")
    own = {*imported(test), *([test.relative_to(ROOT / "tests").parts[0]] if test.parent != ROOT / "tests" else [])}
    return any(below().get(one, frozenset({one})) & touched for one in own)
