"""Words for users are plain English: phrases that readers stumbled over do not come back."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]

PHRASES = (
    "is there already", "tells of", "told of", "broke off", "nobody knows", "to know of", "anew", "mends", "mended",
    "at most so", "so many", "goes on", "go on searching", "lay over each other", "nought", "whereof", "hangs on", "beside",
    "give it longer",
    "as it is trained", "made again", "look again", "every side", "is not told", "withheld of", "fits best, best first",
    "speaks against", "for good", "by itself", "heeded", "bears", "to the bit", "what there is", "get it again", "is called",
    "are called", "went away", "as good as one", "comes with no", "half of a character", "kept from before", "holds files",
    "without ink",
)  # fmt: skip
"""Say instead: already exists, reports, was interrupted, unknown, note, again, repair, N, continues, overlay, zero, depends on,
next to, timed out, rebuilt, refresh, all variants, is not stated; permanently, automatically, bit for bit, download it again,
is named, disconnected, has no bundled, an unpaired surrogate, reused, contains files."""
ALLOWED = {
    ("src/llmbench/retrieval/search/expand.py", "anew"),  # a request to a model that means: in other words
    ("src/llmbench/data/json_rows.py", "half of a character"),  # explained in brackets
}
BANNED = re.compile(rf"\b({'|'.join(map(re.escape, PHRASES))})\b", re.IGNORECASE)


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """The strings of a program that may reach a user: all with a space but its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    silent = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent and " " in node.value:
            yield node.lineno, node.value


def helps(path: Path) -> Iterator[tuple[int, str]]:
    """The docstrings of commands, which are their help."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and "typer." in ast.unparse(node.args):
            yield node.lineno, ast.get_docstring(node) or ""


def test_no_phrase_that_readers_stumbled_over() -> None:
    found = []
    for path in sorted([*(ROOT / "src/llmbench").rglob("*.py"), *(ROOT / "app").rglob("*.py"), ROOT / "install.py"]):
        name = path.relative_to(ROOT).as_posix()
        if "/tiny/" in name:
            continue  # the sentences of the invented handbook
        shown = [*texts(path), *(helps(path) if "/cli/" in name else ())]
        found += [
            f"{name}:{line}: {match[0]!r} in {text.strip()[:80]!r}"
            for line, text in shown
            for match in BANNED.finditer(text)
            if (name, match[0].lower()) not in ALLOWED
        ]
    assert found == []
