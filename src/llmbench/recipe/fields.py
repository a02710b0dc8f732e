"""What every document shares: strict models, and paths that must exist when the document is loaded."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from llmbench import assets
from llmbench.recipe.scalars import Given, as_field
from llmbench.workspace import check_name

__all__ = [
    "Document", "ExistingPath", "Fraction", "Name", "OwnFunction", "Pattern", "Positive", "Reference", "Section", "Seed",
    "all_different", "existing", "placed", "start_of",
]  # fmt: skip

Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _seed(value: int) -> int:
    if not 0 <= value < 2**32:
        raise PydanticCustomError("out_of_range", "Input should be between 0 and 4294967295")
    return value


Seed = Annotated[int, AfterValidator(_seed), Field(json_schema_extra={"minimum": 0, "maximum": 2**32 - 1})]
"""What numpy, torch and Python's random all take."""


class Section(BaseModel):
    """A part of a document: no unknown keys, nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=(), use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _as_written(cls, values: Any) -> Any:
        """In a field that is text, what looks like a number is text; in one that is a number, true is not 1."""
        if not isinstance(values, dict):
            return values
        fields = cls.model_fields
        return {key: as_field(value, fields[key].annotation) if key in fields else value for key, value in values.items()}


class Document(Section):
    """A whole YAML document. `source` is the file it was read from."""

    _source: Path = PrivateAttr(default=Path("recipe.yaml"))

    @property
    def source(self) -> Path:
        """The file this document was read from, as the user named it."""
        return self._source

    @property
    def origin(self) -> str | None:
        """By which this document is known again: `bundled://NAME` or its absolute path; None if it was not read from a file."""
        if not self._source.exists():
            return None
        return assets.origin(self._source)

    @property
    def folder(self) -> Path:
        """The folder that relative paths of this document start from; of a link, that of the file it leads to."""
        return self._source.resolve().parent


def start_of(value: Any, info: ValidationInfo) -> Path:
    """The folder that a relative path starts from: that of the file it stands in, on the command line the working directory."""
    if isinstance(value, Given):
        return value.folder
    return Path(info.context["folder"]) if info.context else Path.cwd()


def existing(value: Any, info: ValidationInfo) -> Any:
    """The path of a file or folder that is there; what is no path stays as it is."""
    if not isinstance(value, (str, Path)):
        return value
    if value == assets.TINY:
        return Path(assets.model_folder(value))
    start = start_of(value, info)
    found = assets.find(str(value), start)
    if found is None:
        raise ValueError(assets.missing(str(value), start))
    return found


def placed(value: Any, info: ValidationInfo) -> Any:
    """The path of a file that need not be there yet; what is no path stays as it is."""
    return start_of(value, info) / assets.expanded(value) if isinstance(value, (str, Path)) else value


ExistingPath = Annotated[Path, BeforeValidator(existing)]
"""A file or folder that is there: absolute, or relative to the document (on the command line: to the working directory).

`bundled://NAME` is a file that came with llmbench, `llmbench/tiny` the folder of the bundled model.
"""


def reference(value: Any, info: ValidationInfo) -> Any:
    """A name, or the path of a folder. What can only be a path (`./model`, `a/b/c`), or is one, becomes absolute."""
    if not isinstance(value, str) or value == assets.TINY or value.startswith("/"):
        return value
    start = start_of(value, info)
    found = assets.find(value, start)
    if found is not None and found.is_dir():
        return str(found)
    if value.startswith(assets.BUNDLED):
        raise ValueError(assets.missing(value, start))
    is_path = value.startswith((".", "~")) or value.count("/") > 1
    return str(start / assets.expanded(value)) if is_path else value


Reference = Annotated[str, BeforeValidator(reference)]
"""The name of a model or an adapter, or a folder that holds one: found as other paths are."""


def _name(value: str) -> str:
    try:
        return check_name(value)
    except Exception as error:
        raise ValueError(str(error).removeprefix("name ")) from error


Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": "^[a-z0-9][a-z0-9._-]{0,63}$"})]
"""A name fit for a folder and for a model id: `[a-z0-9][a-z0-9._-]{0,63}`."""


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_pattern)]
"""A regular expression."""


def _function(value: Any, info: ValidationInfo) -> Any:
    """`file.py:name` with the file found and the function seen in it; nothing of the file is run."""
    if not isinstance(value, str):
        return value
    name, colon, function = value.rpartition(":")
    if not colon or not name.endswith(".py") or not function.isidentifier():
        raise ValueError(f"write path/to/file.py:function, not {value!r}")
    start = start_of(value, info)
    path = assets.find(name, start)
    if path is None:
        raise ValueError(assets.missing(name, start))
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path}:{getattr(error, 'lineno', None) or 1}: is not valid Python ({error})") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from error
    found = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in found:
        raise ValueError(f"{path} defines no function {function} (available: {', '.join(found) or 'none'})")
    return f"{path}:{function}"


OwnFunction = Annotated[str, BeforeValidator(_function), Field(json_schema_extra={"pattern": r"\.py:\w+$"})]
"""`path/to/file.py:name`: a function in a file of the user's. The document names it; nothing is run when it is read."""


def all_different(names: list[Any]) -> list[Any]:
    """The names, each of which stands there once.

    Raises:
        ValueError: one is listed twice.
    """
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} is listed twice")
    return names
