"""Reads YAML into plain values and remembers on which line each one stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError

__all__ = ["Lines", "Place", "read"]

Place = tuple[str | int, ...]
"""Where a value stands, such as `("data", "train", 0, "path")`."""
_LIMIT = 300_000
_MAX_NODES = 100_000
_MAX_DEPTH = 32
_MAX_DIGITS = 64
_TEXT = "tag:yaml.org,2002:str"
_PLAIN = {
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value")
}  # fmt: skip


@dataclass
class Lines:
    """Line numbers by place, such as `("training", "learning_rate") -> 14`."""

    of: dict[Place, int] = field(default_factory=dict)

    def nearest(self, place: Place) -> int | None:
        """The line of a place, or of the closest thing around it that stands in the file."""
        while place and place not in self.of:
            place = place[:-1]
        return self.of.get(place)


def read(file: Path, path: str | Path | None = None) -> tuple[dict[str, Any], Lines]:
    """Reads a YAML document whose top is a mapping.

    Args:
        file: the file to read.
        path: what the user calls it, for messages.

    Raises:
        RecipeError: not there, not readable, not YAML, a tag, a key given twice, nested too deeply, or no mapping.
    """
    path = path or file
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
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    if len(text) > _LIMIT:
        raise RecipeError(f"{path}: {len(text):,} characters is too large for a recipe (at most {_LIMIT:,}).")
    lines = Lines()
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        value = {} if node is None else _value(loader, node, (), lines, path)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise RecipeError(f"{path}:{line}: not valid YAML: the character {error.character:#x} may not stand in it") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise RecipeError(f"{path}: nested too deeply (at most {_MAX_DEPTH} levels)") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of keys to values, not a {type(value).__name__}")
    return value, lines


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
                what = "merging with << is not supported" if key_node.value == "<<" else "a key must be a word"
                raise RecipeError(f"{path}:{line}: {what}")
            key = str(_scalar(loader, key_node, f"{path}:{line}"))
            if key in result:
                first = lines.of[(*place, key)]
                raise RecipeError(f"{path}:{line}: {'.'.join(map(str, (*place, key)))} is given twice (first on line {first})")
            lines.of[(*place, key)] = line
            result[key] = _value(loader, value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    return _number(_scalar(loader, node, here))


def _scalar(loader: yaml.SafeLoader, node: yaml.Node, here: str) -> Any:
    """One value that is neither a list nor a mapping."""
    if node.tag != _TEXT and len(node.value) > _MAX_DIGITS:  # YAML 1.1 also reads 1:10:10:... as a number, at length
        raise RecipeError(f"{here}: a number of {len(node.value):,} characters is too long (at most {_MAX_DIGITS})")
    try:
        return loader.construct_object(node)
    except (ValueError, OverflowError) as error:
        raise RecipeError(f"{here}: {node.value} is no value: {error}. Put it in quotes if it is text") from error


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; people mean the number."""
    if isinstance(value, str) and "e" in value.lower() and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value
