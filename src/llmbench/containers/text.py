"""YAML as a person writes it: texts of several lines as blocks, nothing by reference, names that every tool takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

__all__ = ["dump", "label"]

_LONGEST = 50


def dump(parts: Iterable[dict[str, Any]]) -> str:
    """Objects as YAML documents, in their own order."""
    return yaml.dump_all(parts, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


def label(name: str) -> str:
    """A name as Compose and Kubernetes take them: lower case letters, digits and dashes, at most 50."""
    plain = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower())
    return plain[:_LONGEST].strip("-") or "llmbench"


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _block)
