"""Names inside other packages that llmbench replaces, overrides, calls or reads, and whether they still are what was recorded.

They are no part of a package's interface and may change in any release. Each is a row of one of three registers:
`training/kernels/patches.py`, `engine/patches.py` and `retrieval/embedding/light/patches.py`. `llmbench selftest` prints them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from typing import Any, Literal

from llmbench.errors import LlmbenchError

__all__ = ["Found", "Patch", "from_source", "look", "replaced", "signature", "usable", "verify", "version"]

Use = Literal["replaced", "overridden", "called", "read"]


@dataclass(frozen=True)
class Patch:
    """One borrowed name."""

    owner: str
    """A module, `trl.trainer.utils`, or what stands in one, `transformers.trainer:Trainer`."""
    name: str
    signature: str
    """As `signature` gives it for the recorded versions."""
    use: Use
    purpose: str
    without: str
    """What is lost where the name is not as recorded."""
    package: str
    versions: str
    """The range that the signature was recorded for, as in pyproject.toml."""
    required: bool = False
    """Whether work without it would be wrong, so that it is refused rather than done the plain way."""

    def __str__(self) -> str:
        return f"{self.owner.replace(':', '.')}.{self.name}"


@dataclass(frozen=True)
class Found:
    """A borrowed name as it is installed."""

    patch: Patch
    version: str | None
    """The package's; None where it is not installed."""
    signature: str | None
    """None where there is no such name."""

    @property
    def state(self) -> Literal["ok", "differs", "not installed"]:
        """Whether the name is what was recorded."""
        if self.version is None:
            return "not installed"
        return "ok" if self.signature == self.patch.signature else "differs"

    def line(self) -> str:
        """What differs and what is lost by it."""
        seen = "is missing" if self.signature is None else f"is {self.signature} and not {self.patch.signature}"
        return f"{self.patch.package} {self.version}: {self.patch} {seen}. Without it: {self.patch.without}."

    def as_json(self) -> dict[str, Any]:
        """The row, with what is installed."""
        return asdict(self.patch) | {"version": self.version, "installed": self.signature, "state": self.state}


@contextmanager
def replaced(changes: Mapping[Patch, Any]) -> Iterator[None]:
    """Puts values in the place of borrowed names while the block runs, and the names' own back however it ends.

    A name that is not what was recorded is left alone, and one line on stderr says what is lost.

    Raises:
        LlmbenchError: such a name is `required`.
    """
    with ExitStack() as stack:
        for patch, value in changes.items():
            if usable(patch):
                owner = _owner(patch)
                inherited = isinstance(owner, type) and patch.name not in vars(owner)
                before = getattr(owner, patch.name)
                setattr(owner, patch.name, value)
                if inherited:
                    stack.callback(delattr, owner, patch.name)
                else:
                    stack.callback(setattr, owner, patch.name, before)
        yield


@cache
def usable(patch: Patch) -> bool:
    """Whether a name is what was recorded; where it is not, a line on stderr says so, once.

    Raises:
        LlmbenchError: it is not, and it is `required`.
    """
    found = look(patch)
    if found.state == "ok":
        return True
    if patch.required:
        raise LlmbenchError(f"{found.line()} Run: pip install '{patch.package}{patch.versions}'")
    print(found.line(), file=sys.stderr)
    return False


def verify(*patches: Patch) -> None:
    """Makes sure of names that are overridden: under another name or signature the override would never be called.

    Raises:
        LlmbenchError: one that is `required` is not what was recorded.
    """
    for patch in patches:
        usable(patch)


@cache
def look(patch: Patch) -> Found:
    """A name as it is installed. Its module is imported, and looked at before anything of it is replaced."""
    installed = version(patch.package)
    if installed is None:
        return Found(patch, None, None)
    try:
        return Found(patch, installed, signature(_owner(patch), patch.name))
    except (ImportError, AttributeError):
        return Found(patch, installed, None)


def version(package: str) -> str | None:
    """The installed version of a package; of vLLM's two distributions the one that is there."""
    for name in (package, f"{package}-cpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def signature(owner: Any, name: str) -> str | None:
    """What a name of a module or class is, in one line; None where there is none.

    `(self, x, scale=...)` for functions, and for autograd functions by their forward; the schema of PyTorch's operators;
    `class`, `property`, the type of any other value; `attribute` for what the owner's code sets on an object.
    """
    try:
        value = getattr(owner, name)
    except AttributeError:
        return "attribute" if _sets(owner, name) else None
    if hasattr(value, "_schema"):
        return str(value._schema)
    if isinstance(value, type):
        forward = vars(value).get("forward")
        return _parameters(forward.__func__) if isinstance(forward, staticmethod) else "class"
    if isinstance(value, property):
        return "property"
    return _parameters(value) if callable(value) else type(value).__name__


def from_source(text: str, kind: str, name: str) -> str | None:
    """The signature of a method by its module's text, for a package that is not imported; None where there is none."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef) and node.name == kind:
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner.name == name:
                    return _spelled(inner.args)
    return None


def _owner(patch: Patch) -> Any:
    module, _, path = patch.owner.partition(":")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of experimental modules, whose versions are pinned
        found: Any = importlib.import_module(module)
    for part in filter(None, path.split(".")):
        found = getattr(found, part)
    return found


def _sets(owner: Any, name: str) -> bool:
    """Whether the code of a module or class sets an attribute of this name on an object."""
    try:
        text = inspect.getsource(owner)
    except (OSError, TypeError):
        return False
    return re.search(rf"\w\.{re.escape(name)}(: [^=\n]+)? = ", text) is not None


def _parameters(function: Callable[..., Any]) -> str:
    """`(self, x, *, scale=...)`: names, kinds and whether there is a default; annotations are no part of a call."""
    found: list[str] = []
    for one in inspect.signature(function).parameters.values():
        if one.kind is one.KEYWORD_ONLY and not any(part.startswith("*") for part in found):
            found.append("*")
        stars = "*" if one.kind is one.VAR_POSITIONAL else "**" if one.kind is one.VAR_KEYWORD else ""
        found.append(f"{stars}{one.name}" + ("" if one.default is one.empty else "=..."))
    return f"({', '.join(found)})"


def _spelled(arguments: ast.arguments) -> str:
    """As `_parameters`, of a function's source."""
    plain = [*arguments.posonlyargs, *arguments.args]
    first = len(plain) - len(arguments.defaults)
    found = [one.arg + ("=..." if at >= first else "") for at, one in enumerate(plain)]
    if arguments.vararg or arguments.kwonlyargs:
        found.append(f"*{arguments.vararg.arg if arguments.vararg else ''}")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    found += [one.arg + ("" if default is None else "=...") for one, default in pairs]
    if arguments.kwarg:
        found.append(f"**{arguments.kwarg.arg}")
    return f"({', '.join(found)})"
