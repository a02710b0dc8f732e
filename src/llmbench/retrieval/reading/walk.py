"""Which files a pipeline names: folders walked, links kept inside, what cannot be read reported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmbench.recipe import SourceSpec
from llmbench.retrieval.documents import Skipped

__all__ = ["KINDS", "File", "walk"]

KINDS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".pdf": "pdf",
}
"""How a file is read, by the end of its name."""


@dataclass(frozen=True)
class File:
    """A file to index: where it lies, how it is called in the index, and what the pipeline says of its place."""

    path: Path
    source: str
    place: SourceSpec


def walk(places: Sequence[SourceSpec]) -> tuple[list[File], list[Skipped]]:
    """Every readable file under the roots, sorted by source, and what was left out with the reason.

    One folder's sources are relative to it; those of several roots to the folder that holds them all. Hidden files are
    passed over in silence; a link that leads out of its root, a file of another kind and a device are reported.
    """
    roots = [place.path.resolve() for place in places]
    base = roots[0] if len(roots) == 1 and roots[0].is_dir() else Path(os.path.commonpath([root.parent for root in roots]))
    files: dict[Path, File] = {}
    skipped: list[Skipped] = []
    for root, place in zip(roots, places, strict=True):
        for path in [root] if root.is_file() else _under(root):
            source = _name(path, base)
            target = path.resolve()
            if path.is_symlink() and not target.is_relative_to(root):
                skipped.append((source, "a link that leads out of the folder"))
            elif path.is_dir() or target in files:
                continue
            elif not path.is_file():
                skipped.append((source, "a broken link" if path.is_symlink() else "not a plain file"))
            elif path.suffix.lower() not in KINDS:
                skipped.append((source, "not Markdown, HTML, text or PDF"))
            else:
                files[target] = File(path, source, place)
    return sorted(files.values(), key=lambda file: file.source), sorted(skipped)


def _under(root: Path) -> list[Path]:
    """What a folder holds, hidden files and folders left out; links to folders are listed, not followed."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        found += [Path(folder) / name for name in sorted(names) + links if not name.startswith(".")]
    return found


def _name(path: Path, base: Path) -> str:
    """The path from the base, with `/`; bytes that are not UTF-8 shown as question marks."""
    return path.relative_to(base).as_posix().encode("utf-8", "replace").decode()
