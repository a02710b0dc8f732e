"""Reads YAML into plain values and remembers on which line each one stands."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from llmbench import assets
from llmbench.errors import RecipeError
from llmbench.recipe import yaml_text
from llmbench.recipe.scalars import Given, environment, plain

__all__ = ["Lines", "Place", "read", "read_text", "value"]

Place = tuple[str | int, ...]
"""Where a value stands, such as `("data", "train", 0, "path")`."""
_LIMIT = 300_000
_MAX_NODES = 100_000
_MAX_DEPTH = 32
_MAX_FILES = 16
_SHOWN = 60
_KINDS: dict[type, str] = {list: "a list", str: "text"}
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value")
}  # fmt: skip


@dataclass
class Lines:
    """Line numbers by place, such as `("training", "learning_rate") -> 14`."""

    of: dict[Place, int] = field(default_factory=dict)
    included: dict[Place, str] = field(default_factory=dict)
    """The file of each place that stands in another file than the document's own."""

    def nearest(self, place: Place) -> int | None:
        """The line of a place, or of the closest thing around it that stands in a file."""
        return self.of.get(self._known(place))

    def where(self, place: Place, path: str | Path) -> str:
        """File and line of a place, for a message."""
        known = self._known(place)
        file = self.included.get(known, str(path))
        return f"{file}:{self.of[known]}" if known in self.of else file

    def _known(self, place: Place) -> Place:
        while place and place not in self.of:
            place = place[:-1]
        return place


class _Loader(yaml.SafeLoader):
    """Notes of each scalar whether it is written without quotes and without a tag."""

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        node: Any = super().compose_scalar_node(anchor)
        node.plain = event.implicit[0]
        return cast(yaml.ScalarNode, node)


def read(file: Path, path: str | Path | None = None) -> tuple[dict[str, Any], Lines]:
    """Reads a YAML document whose top is a mapping, with what it includes.

    `include: base.yaml`, or a list of files, at the top: their values hold where the document says nothing else; sections
    are joined key by key, lists are not. `${env:NAME}` and `${env:NAME,default}` stand for variables of the environment.

    Args:
        file: the file to read.
        path: what the user calls it, for messages.

    Raises:
        RecipeError: not there, not readable, not YAML, a tag, a key given twice, nested too deeply, or no mapping.
    """
    return _joined(file, path or file, [])


def read_text(text: str, path: str | Path) -> tuple[dict[str, Any], Lines]:
    """As `read`, of a text that is to be the file `path`.

    Raises:
        RecipeError: as `read`.
    """
    return _parsed(text, path)


def value(text: str) -> Any:
    """The value of a text as YAML, such as that of `key=VALUE` on the command line.

    Raises:
        RecipeError: it is not YAML.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        return None if node is None else _value(loader, node, (), Lines(), "")
    except RecipeError as error:
        raise RecipeError(re.sub(r"^:\d+: ", "", str(error))) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"the value is not valid YAML ({getattr(error, 'problem', None) or error})") from error
    except RecursionError as error:
        raise RecipeError(f"the value is nested too deeply (at most {_MAX_DEPTH} levels)") from error


def _joined(file: Path, path: str | Path, around: list[Path]) -> tuple[dict[str, Any], Lines]:
    """The values of a file over those of the files that it includes; `around` are the files that include it."""
    values, lines = _one(file, path)
    if around:
        lines.included = dict.fromkeys(lines.of, str(path))
    names = values.pop("include", None)
    if names is None:
        return values, lines
    here = lines.where(("include",), path)
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(f"{here}: include should be the name of a file, or a list of them")
    below, known = dict[str, Any](), Lines()
    around = [*around, file.resolve()]
    for name in names:
        found = assets.named(name, file.absolute().parent)
        if found is None:
            raise RecipeError(f"{here}: include: {assets.missing(name, file.absolute().parent)}")
        if found in around or len(around) >= _MAX_FILES:
            through = f", through {len(around)} files" if len(around) > 1 else ""
            raise RecipeError(f"{here}: include: {name} includes itself{through}")
        more, others = _joined(found, found, around)
        below, known = _over(below, _started(more, found.parent), (), known), _under(known, others)
    return _over(below, values, (), known), _under(known, lines)


def _over(below: dict[str, Any], above: dict[str, Any], place: Place, known: Lines) -> dict[str, Any]:
    """Two mappings as one: sections joined key by key, everything else as it stands above. Forgets the lines of what goes."""
    result = dict(below)
    for key, value in above.items():
        here = (*place, key)
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = _over(result[key], value, here, known)
            continue
        result[key] = value
        for gone in [other for other in known.of if other[: len(here)] == here]:
            del known.of[gone]
            known.included.pop(gone, None)
    return result


def _under(below: Lines, above: Lines) -> Lines:
    """The lines of two files as those of their values joined."""
    included = {place: file for place, file in below.included.items() if place not in above.of}
    return Lines(below.of | above.of, included | above.included)


def _started(value: Any, folder: Path) -> Any:
    """A value of an included file: relative paths in it start from the folder of that file."""
    match value:
        case Given():
            return value
        case str():
            return Given(value, folder)
        case list():
            return [_started(one, folder) for one in value]
        case dict():
            return {key: _started(one, folder) for key, one in value.items()}
    return value


def _one(file: Path, path: str | Path) -> tuple[dict[str, Any], Lines]:
    """The values of one file, and where they stand in it."""
    return _parsed(_text(file, path), path)


def _parsed(text: str, path: str | Path) -> tuple[dict[str, Any], Lines]:
    lines = Lines()
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        value = {} if node is None else _value(loader, node, (), lines, path)
    except yaml.YAMLError as error:
        raise yaml_text.invalid(error, text, path) from error
    except RecursionError as error:
        raise RecipeError(f"{path}: nested too deeply (at most {_MAX_DEPTH} levels)") from error
    if not isinstance(value, dict):
        raise RecipeError(
            f"{path}:1: a recipe is lines of `key: value`, and this is {_KINDS.get(type(value), 'a single value')}"
        )
    return value, lines


def _text(file: Path, path: str | Path) -> str:
    """What a file holds, if it may be a recipe."""
    try:
        if file.is_dir():
            raise RecipeError(f"{path}: is a folder. Name a YAML file; to index a folder, one with `documents: [{path}]`.")
        if file.exists() and not file.is_file():
            raise RecipeError(f"{path}: is a device or a pipe. Name a YAML file.")
        if file.stat().st_size > 4 * _LIMIT:
            raise RecipeError(
                f"{path}: {file.stat().st_size:,} bytes is too large for a recipe (at most {_LIMIT:,} characters)."
            )
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file. `llmbench new` lists the bundled recipes.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text (byte {error.start + 1}). Save the file as UTF-8.") from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(text) > _LIMIT:
        raise RecipeError(f"{path}: {len(text):,} characters is too large for a recipe (at most {_LIMIT:,}).")
    return text


def _value(loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: Lines, path: str | Path) -> Any:
    here = f"{path}:{node.start_mark.line + 1}"
    if len(place) > _MAX_DEPTH:
        raise RecipeError(f"{here}: nested too deeply (at most {_MAX_DEPTH} levels)")
    if node.tag not in _PLAIN:
        raise RecipeError(f"{here}: the tag {node.tag.replace('tag:yaml.org,2002:', '!!')} is not allowed: write plain values")
    lines.of.setdefault(place, node.start_mark.line + 1)
    if len(lines.of) > _MAX_NODES:
        raise RecipeError(f"{path}: more than {_MAX_NODES:,} values; aliases that multiply are not allowed")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _PLAIN:
                what = "merging with << is not supported: use `include`" if key_node.value == "<<" else "a key must be a word"
                raise RecipeError(f"{path}:{line}: {what}")
            key = str(key_node.value)
            if key in result:
                first = lines.of[(*place, key)]
                raise RecipeError(f"{path}:{line}: {'.'.join(map(str, (*place, key)))} is given twice (first on line {first})")
            lines.of[(*place, key)] = line
            result[key] = _value(loader, value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return _scalar(loader, node, here)


def _scalar(loader: yaml.SafeLoader, node: Any, here: str) -> Any:
    """One value that is neither a list nor a mapping."""
    try:
        text = environment(node.value)
        if node.plain:
            return plain(text)
        if node.style is not None and node.tag == _TEXT:
            return text
        node.value = text
        return loader.construct_object(node)
    except (ValueError, OverflowError) as error:
        raise RecipeError(
            f"{here}: {node.value[:_SHOWN]} is not a valid value: {error}. Put it in quotes if it is text"
        ) from error
