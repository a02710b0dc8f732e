"""Functions from a file of the user's, which a recipe names openly: the only code that a recipe can make run."""

from __future__ import annotations

import importlib.util
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from llmbench.errors import LlmbenchError

__all__ = ["file", "line", "load"]


def file(reference: str) -> Path:
    """The file of `path/to/file.py:name`."""
    return Path(reference.rpartition(":")[0])


def load(reference: str) -> tuple[Callable[..., Any], Path]:
    """The function that `path/to/file.py:name` stands for, and its file, which is run now.

    Raises:
        LlmbenchError: the file fails; the message has the line.
    """
    path, name = file(reference), reference.rpartition(":")[2]
    loader = _FromSource(f"own_{path.stem}", str(path))
    spec = importlib.util.spec_from_file_location(loader.name, path, loader=loader)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise LlmbenchError(f"{line(error, path)}: cannot be loaded ({type(error).__name__}: {error}).") from error
    function: Callable[..., Any] = getattr(module, name)
    return function, path


class _FromSource(SourceFileLoader):
    """Compiles the file as it is now: what Python keeps in __pycache__ is known by second and size alone."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        """Says that nothing is known, upon which nothing is read from there, or kept."""
        raise OSError


def line(error: BaseException, path: Path) -> str:
    """`file:line` of the deepest place in the user's file that an error came through."""
    if isinstance(error, SyntaxError):
        return f"{path}:{error.lineno or 1}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f"{path}:{lines[-1]}" if lines else str(path)
