"""What can go wrong in a way that the user can mend. `cli` prints each as one line and exits with code 2.

LlmbenchError           says what, where and what next
├── RecipeError         a YAML document that cannot be used as it stands
├── DataError           training rows or question files
├── MissingPackage      a package that a verb needs is not installed
├── RunError            a run folder: not found, locked, of another recipe
├── IndexError_         an index: not built, of another embedder, broken
├── EngineError         vLLM did not start or died
└── EndpointError       an OpenAI-compatible URL does not answer, or answers with an error
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "EndpointError",
    "EngineError",
    "IndexError_",
    "LlmbenchError",
    "MissingPackage",
    "RecipeError",
    "RunError",
]


class LlmbenchError(Exception):
    """One line for the user: what is wrong, where, and what to do next."""


class RecipeError(LlmbenchError):
    """A recipe that cannot be used. Several faults are several lines, each with file and line number."""


class DataError(LlmbenchError):
    """Training data or a question file that cannot be used."""


class MissingPackage(LlmbenchError):
    """A verb needs a package that is not installed."""

    def __init__(self, verb: str, package: str, extra: str) -> None:
        super().__init__(f"`llmbench {verb}` needs {package}, which is not installed. Run: pip install 'llmbench[{extra}]'")


class RunError(LlmbenchError):
    """A run folder that is not there, is in use, or does not fit the recipe."""


class IndexError_(LlmbenchError):
    """An index that is not built, was built with another embedder, or is broken."""


class EngineError(LlmbenchError):
    """vLLM did not start, or died."""


class EndpointError(LlmbenchError):
    """An endpoint that does not answer, or that answers with an error."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
