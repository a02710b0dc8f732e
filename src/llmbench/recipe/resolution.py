"""A document fully resolved: every value, and where it comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from llmbench.recipe.fields import Document
from llmbench.recipe.load import Opened, checked, kind_of, opened
from llmbench.recipe.methods import SECTIONS
from llmbench.recipe.yaml_lines import Place

__all__ = ["Origin", "Resolution", "Resolved", "resolve"]

Origin = Literal["file", "override", "default", "derived"]
_SECRET = ("api_key", "limits_in")
_SHORT = ("path", "endpoint", "to")
"""Fields that a value in the place of their section stands for: `documents: pages`, `tracking: [mlflow]`."""
_OPEN: dict[str, str] = {
    "model.dtype": "auto", "model.device": "auto", "model.attn_implementation": "auto", "engine.tool_parser": "auto",
    "embedder.backend": "auto", "embedder.precision": "auto",
}  # fmt: skip
"""Values that leave the choice to the machine when it is used."""
_CHOSEN = ("padding_free", "fused_lora", "gradient_checkpointing", "torch_compile")
"""Of `training`: null is chosen for the model and the machine."""


@dataclass(frozen=True)
class Resolved:
    """One value of a document."""

    place: Place
    value: Any
    """As JSON has it."""
    origin: Origin
    where: str
    """file: FILE:LINE; override: the key that was given; derived: from what; default: empty, or who chooses later."""

    @property
    def field(self) -> str:
        """`data.train[0].path`."""
        text = ""
        for part in self.place:
            text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
        return text


@dataclass(frozen=True)
class Resolution:
    """A document, and where each of its values comes from, in the order of the declarations."""

    document: Document
    values: tuple[Resolved, ...]

    @property
    def counts(self) -> dict[Origin, int]:
        """How many values come from where."""
        found = Counter(one.origin for one in self.values)
        return {"file": found["file"], "override": found["override"], "derived": found["derived"], "default": found["default"]}


def resolve(path: str | Path, overrides: Sequence[str] = ()) -> Resolution:
    """Reads a document of any kind as `load` does, and says where its values come from.

    Args:
        path: a file, or the name of a bundled one.
        overrides: `dotted.key=value`.

    Raises:
        RecipeError: as `load`.
    """
    found = opened(path)
    kind = kind_of(found)
    found = opened(path, overrides)
    written = _copied(found.values)
    document = checked(found, kind)
    return Resolution(document, tuple(_values(document, (), found, written)))


def _copied(value: Any) -> Any:
    """The values before validators take them in hand."""
    match value:
        case dict():
            return {key: _copied(one) for key, one in value.items()}
        case list():
            return [_copied(one) for one in value]
    return value


def _values(section: BaseModel, place: Place, found: Opened, written: dict[str, Any]) -> Iterator[Resolved]:
    """The values of a section and of those in it. A section that is null is one value, if it could be more."""
    for name, field in type(section).model_fields.items():
        value, here = getattr(section, name), (*place, name)
        if isinstance(value, BaseModel):
            yield from _values(value, here, found, written)
        elif isinstance(value, list) and value and all(map(_has_parts, value)):
            for i, one in enumerate(value):
                yield from _values(one, (*here, i), found, written)
        else:
            secret = value is not None and (not field.repr or name in _SECRET)
            shown = "***" if secret else to_jsonable_python(value)
            default = None if field.is_required() else field.get_default(call_default_factory=True)
            origin, where = _origin(here, value, default, field.is_required(), found, written)
            yield Resolved(here, shown, origin, where)


def _has_parts(value: Any) -> bool:
    """Whether it is a section whose fields stand in the document as they are; one with a form of its own is a value."""
    return isinstance(value, BaseModel) and not type(value).__pydantic_decorators__.model_serializers


def _origin(
    place: Place, value: Any, default: Any, required: bool, found: Opened, written: dict[str, Any]
) -> tuple[Origin, str]:
    override = next((text for given, text in found.given.items() if place[: len(given)] == given), None)
    override = override or next((text for given, text in found.given.items() if given[: len(place)] == place), None)
    if override is not None and _said(place, written):
        return "override", override.partition("=")[0].strip()
    if _said(place, written):
        return "file", found.lines.where(place, found.path)
    derived = _derived(place, value, written)
    if not required and value == default and derived is None:
        name = ".".join(map(str, place))
        later = (name in _OPEN and _OPEN[name] == value) or (place[0] == "training" and place[-1] in _CHOSEN and value is None)
        return "default", "chosen when it runs" if later else ""
    return "derived", derived or "from what stands next to it"


def _said(place: Place, written: Any) -> bool:
    """Whether a place is written out, or a short form that stands for all of its section (`documents: pages`)."""
    here = written
    for part in place:
        if isinstance(here, dict):
            if part not in here:
                return False
            here = here[part]
        elif isinstance(here, list):
            if not isinstance(part, int) or part >= len(here):
                return part in _SHORT
            here = here[part]
        else:
            return here is not None and (part == 0 or part in _SHORT)
    return True


def _derived(place: Place, value: Any, written: dict[str, Any]) -> str | None:
    """What a value that nobody wrote follows from; None where it follows from nothing."""
    method, first = str(written.get("method", "sft")), place[0]
    if place == ("training", "learning_rate") and method in SECTIONS:
        beside = "lora" not in written or any(
            written.get(key) is not None for key in ("lora", "adapter", "adapter_name_or_path")
        )
        return f"from method: {method}, for {'an adapter' if beside else 'all parameters'}"
    if first in ("lora", "adapter") and written.get("adapter_name_or_path") is not None:
        return "from the adapter that it continues" if value is not None else None
    if place == ("lora",) and value is None and (written.get("adapter") or written.get("freeze")):
        return f"from {'adapter' if written.get('adapter') else 'freeze'}"
    if place == ("quantization", "load_in_4bit") and value is True:
        return "from quantization without load_in_8bit"
    if place[-1] == "url" and value is not None:
        return "from path, which is an address"
    return None
