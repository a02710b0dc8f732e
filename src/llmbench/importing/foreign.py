"""Reads another trainer's file into plain values with their lines. Nothing in it is executed, and no tag makes an object.

The peers read YAML 1.1 with PyYAML, where `yes` is true and `2e-5` a text that they turn into a number later; so is it here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError
from llmbench.recipe import yaml_text

__all__ = ["Foreign", "Place", "Unread", "mapping", "number", "read", "text_of"]

Place = tuple[str | int, ...]
"""Where a value stands, such as `("datasets", 0, "path")`."""
_LIMIT = 2_000_000
_MAX_NODES = 100_000
_MAX_DEPTH = 24
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_STANDARD = {
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "merge")
}


@dataclass(frozen=True)
class Unread:
    """What a script computes: its source, which nobody runs."""

    source: str


@dataclass(frozen=True)
class Foreign:
    """A configuration as it was read, and not yet judged."""

    path: Path
    """As the user named it."""
    text: str
    values: dict[str, Any]
    lines: dict[Place, int] = field(default_factory=dict)
    command: str | None = None
    """The program that a command line or script starts, such as `trl sft`; None of a configuration file."""


def read(path: Path) -> Foreign:
    """Reads a YAML or JSON configuration.

    Raises:
        RecipeError: it cannot be read, is no YAML or JSON, gives a key twice, or has no mapping at its top; one line.
    """
    text = text_of(path)
    return mapping(path, text)


def text_of(path: Path) -> str:
    """What a file holds, if it may be a configuration.

    Raises:
        RecipeError: it cannot be read, is too large, or is no text.
    """
    try:
        if path.is_dir():
            raise RecipeError(f"{path}: is a folder. Name the configuration in it.")
        if path.exists() and not path.is_file():
            raise RecipeError(f"{path}: is a device or a pipe. Name a file.")
        size = path.stat().st_size
        if size > _LIMIT:
            raise RecipeError(f"{path}: {size:,} bytes is too large for a configuration (at most {_LIMIT:,}).")
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file. Name the configuration of the other trainer.") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not UTF-8 text (byte {error.start + 1}). Name a YAML, JSON, Python or shell file."
        ) from error
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror}).") from error
    if "\0" in text:
        raise RecipeError(f"{path}: is a binary file. Name a YAML, JSON, Python or shell file.")
    return text


def mapping(path: Path, text: str) -> Foreign:
    """The mapping that a YAML or JSON text is.

    Raises:
        RecipeError: as `read`.
    """
    if path.suffix.lower() == ".json":
        text = _plain_json(path, text)
    lines: dict[Place, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        value = {} if node is None else _Reader(loader, path, lines).value(node, ())
    except yaml.YAMLError as error:
        raise yaml_text.invalid(error, text, path) from error
    except RecursionError as error:
        raise RecipeError(f"{path}: nested too deeply (at most {_MAX_DEPTH} levels)") from error
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else "a single value"
        raise RecipeError(f"{path}:1: a configuration is lines of `key: value`, and this is {what}")
    return Foreign(path, text, value, lines)


def _plain_json(path: Path, text: str) -> str:
    """The text, if it is JSON: tabs, which YAML refuses, are made spaces where they only indent."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: nested too deeply (at most {_MAX_DEPTH} levels)") from error
    return re.sub(r"(?m)^[ \t]+", lambda found: found[0].replace("\t", "  "), text)


def number(text: str) -> int | float | None:
    """The number that a text is, as the peers take `2e-5`; None of another text."""
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        return None
    return int(text) if re.fullmatch(r"[-+]?\d+", text) else float(text)


class _Reader:
    """YAML's nodes as plain values; keys that are given twice are refused, aliases are counted as often as they are used."""

    def __init__(self, loader: yaml.SafeLoader, path: Path, lines: dict[Place, int]) -> None:
        self.loader, self.path, self.lines, self.nodes = loader, path, lines, 0

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.nodes += 1
        here = f"{self.path}:{node.start_mark.line + 1}"
        if self.nodes > _MAX_NODES:
            raise RecipeError(f"{self.path}: more than {_MAX_NODES:,} values; aliases that multiply are not allowed")
        if len(place) > _MAX_DEPTH:
            raise RecipeError(f"{here}: nested too deeply (at most {_MAX_DEPTH} levels)")
        if node.tag not in _STANDARD:
            tag = node.tag.replace("tag:yaml.org,2002:", "!!")
            raise RecipeError(f"{here}: the tag {tag} is not read: write the value itself")
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, i)) for i, item in enumerate(node.value)]
        try:
            value = self.loader.construct_object(node)
        except (ValueError, OverflowError, yaml.YAMLError) as error:
            raise RecipeError(f"{here}: {str(node.value)[:40]} is not a valid value") from error
        if isinstance(value, str) and getattr(node, "style", None) is None:
            found = number(value)
            return value if found is None else found
        return value if isinstance(value, str | int | float | bool | None) else str(node.value)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        below: list[yaml.Node] = []
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                below += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag not in _STANDARD:
                raise RecipeError(f"{self.path}:{line}: a key must be a word")
            key = str(key_node.value)
            if key in result:
                first = self.lines[(*place, key)]
                name = ".".join(map(str, (*place, key)))
                raise RecipeError(f"{self.path}:{line}: {name} is given twice (first on line {first}); leave one of them")
            self.lines[(*place, key)] = line
            result[key] = self.value(value_node, (*place, key))
        for merged in below:
            if not isinstance(merged, yaml.MappingNode):
                raise RecipeError(f"{self.path}:{merged.start_mark.line + 1}: << merges sections, and this is none")
            result = {**self._under(merged, place, result), **result}
        return result

    def _under(self, node: yaml.MappingNode, place: Place, above: dict[str, Any]) -> dict[str, Any]:
        """What a merged section brings that is not said above it; lines of what is said above stay."""
        kept = {spot: line for spot, line in self.lines.items() if spot[: len(place)] == place}
        found = self._mapping(node, place)
        self.lines.update(kept)
        return {key: value for key, value in found.items() if key not in above}
