"""Reads YAML into plain values and remembers on which line each one stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from llmbench.errors import RecipeError

__all__ = ["Lines", "read"]

Place = tuple[str | int, ...]
_LIMIT = 1_000_000
_MAX_NODES = 100_000


@dataclass
class Lines:
    """Line numbers by place, such as `("training", "learning_rate") -> 14`."""

    of: dict[Place, int] = field(default_factory=dict)

    def nearest(self, place: Place) -> int | None:
        """The line of a place, or of the closest thing around it that stands in the file."""
        while place and place not in self.of:
            place = place[:-1]
        return self.of.get(place)


def read(path: Path) -> tuple[dict[str, Any], Lines]:
    """Reads a YAML document whose top is a mapping.

    Raises:
        RecipeError: not there, not readable, not YAML, a key given twice, or no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"{path}: no such file. `llmbench new` lists the bundled recipes.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as UTF-8 text ({error}).") from error
    if len(text) > _LIMIT:
        raise RecipeError(f"{path}: {len(text):,} characters is too large for a recipe (at most {_LIMIT:,}).")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        lines = Lines()
        if node is None:
            return {}, lines
        value = _value(loader, node, (), lines, path)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise RecipeError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise RecipeError(f"{path}:1: a recipe is a mapping of keys to values, not a {type(value).__name__}")
    return value, lines


def _value(loader: yaml.SafeLoader, node: yaml.Node, place: Place, lines: Lines, path: Path) -> Any:
    lines.of.setdefault(place, node.start_mark.line + 1)
    if len(lines.of) > _MAX_NODES:
        raise RecipeError(f"{path}: more than {_MAX_NODES:,} values; aliases that multiply are not allowed")
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(loader.construct_object(key_node))
            line = key_node.start_mark.line + 1
            if key in result:
                first = lines.of[(*place, key)]
                raise RecipeError(f"{path}:{line}: {'.'.join(map(str, (*place, key)))} is given twice (first on line {first})")
            lines.of[(*place, key)] = line
            result[key] = _value(loader, value_node, (*place, key), lines, path)
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*place, i), lines, path) for i, item in enumerate(node.value)]
    value = loader.construct_object(node)
    return _number(value)


def _number(value: Any) -> Any:
    """YAML 1.1 reads `1e-4` as text; people mean the number."""
    if isinstance(value, str) and "e" in value.lower() and value[:1] in "+-.0123456789":
        try:
            return float(value)
        except ValueError:
            return value
    return value
