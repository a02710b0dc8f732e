"""Cuts source code along its syntax tree: functions and classes whole where they fit, what surrounds them in the title.

The grammars are tree-sitter's, one small wheel a language (0.3 to 5 MB, MIT, all with the grammar inside). The one package
with all languages fetches its grammars when they are first used, and so is no choice for machines without internet.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from llmbench.errors import MissingPackage
from llmbench.retrieval.chunking.measure import TITLE_TOKENS, Stretch, Tokens, line_start
from llmbench.retrieval.chunking.passages import fill
from llmbench.retrieval.documents import Document

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

__all__ = ["LARGEST", "Source", "Unit", "cut", "language", "title"]

_GRAMMARS = {
    "python", "javascript", "typescript", "tsx", "java", "go", "rust", "c", "cpp", "csharp", "ruby", "php", "bash",
}  # fmt: skip
"""The languages that are cut along their syntax."""
_NAMES = {
    "py": "python", "pyi": "python", "python3": "python", "js": "javascript", "jsx": "javascript", "mjs": "javascript",
    "cjs": "javascript", "ts": "typescript", "mts": "typescript", "golang": "go", "rs": "rust", "h": "c", "c++": "cpp",
    "cc": "cpp", "cxx": "cpp", "hpp": "cpp", "hh": "cpp", "cs": "csharp", "c#": "csharp", "rb": "ruby", "sh": "bash",
    "shell": "bash", "zsh": "bash",
}  # fmt: skip
"""Other names of languages, and the ends of their files' names."""

LARGEST = 2 * 2**20
"""Characters up to which a file is parsed; a longer one is generated, and is cut by tokens."""
_DEEPEST = 100
"""Levels of the tree to which cutting goes down; generated expressions nest deeper."""

_DEFINITION = re.compile(
    r"(?:async_)?(?:function|method|class|abstract_class|constructor|interface|enum|record|struct|union|trait|impl|mod|"
    r"module|namespace|type|type_alias|annotation_type|singleton)_(?:definition|declaration|item|specifier|method|class)"
    r"|method|singleton_method|class|module|internal_module|namespace_definition"
)
_WRAPPER = re.compile(r"decorated_definition|export_statement|template_declaration|ambient_declaration")
_BODY = re.compile(r"(?:.*_)?(?:block|body|compound_statement|body_statement|do_group)|\w+_list|then")
_COMMENT = re.compile(r"(?:line_|block_)?comment|attribute_item|inner_attribute_item")
_IMPORT = re.compile(r"import.*|use_declaration|using_directive|preproc_include|namespace_use_declaration")


@dataclass(frozen=True)
class Unit:
    """A stretch of code, its tokens, and the heads of what it stands in, outermost first."""

    start: int
    end: int
    tokens: int
    within: tuple[str, ...]
    plain: bool = True
    """Whether it holds no definition."""
    opens: bool = False
    """Whether it is the head of a definition that is cut, which goes with what follows and not with what came before."""


def language(document: Document) -> str | None:
    """The language of source code for which there is a grammar, by its metadata or the end of its name; None for all else."""
    if document.kind not in ("code", "text"):
        return None
    suffix = document.source.partition("#")[0].rpartition(".")[2].lower()
    # Of other texts `language` names English or Czech (cs).
    named = str(document.metadata.get("language", "")).lower() if document.kind == "code" else ""
    for name in (named, suffix):
        if (known := _NAMES.get(name, name)) in _GRAMMARS:
            return known
    return None


@cache
def _parser(name: str) -> Parser:
    try:
        from tree_sitter import Language, Parser

        return Parser(Language(_grammar(name)))
    except ImportError as error:
        raise MissingPackage("index", (error.name or f"tree-sitter-{name}").replace("_", "-"), "rag") from error


def _grammar(name: str) -> Any:
    """The grammar of a language, each import by its name: nothing that a document says decides what is loaded."""
    match name:
        case "python":
            import tree_sitter_python

            return tree_sitter_python.language()
        case "javascript":
            import tree_sitter_javascript

            return tree_sitter_javascript.language()
        case "java":
            import tree_sitter_java

            return tree_sitter_java.language()
        case "go":
            import tree_sitter_go

            return tree_sitter_go.language()
        case "rust":
            import tree_sitter_rust

            return tree_sitter_rust.language()
        case "c":
            import tree_sitter_c

            return tree_sitter_c.language()
        case "cpp":
            import tree_sitter_cpp

            return tree_sitter_cpp.language()
        case "csharp":
            import tree_sitter_c_sharp

            return tree_sitter_c_sharp.language()
        case "ruby":
            import tree_sitter_ruby

            return tree_sitter_ruby.language()
        case "bash":
            import tree_sitter_bash

            return tree_sitter_bash.language()
        case "typescript":
            import tree_sitter_typescript

            return tree_sitter_typescript.language_typescript()
        case "tsx":
            import tree_sitter_typescript

            return tree_sitter_typescript.language_tsx()
        case "php":
            import tree_sitter_php

            return tree_sitter_php.language_php()
    raise LookupError(name)


class Source:
    """Parsed source code.

    Raises:
        MissingPackage: the grammar is not installed.
    """

    def __init__(self, text: str, name: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self.text = text
        self.root = _parser(name).parse(data).root_node
        self._characters = _characters(text) if len(data) != len(text) else None
        self._imports = [
            (self.words(node), _bound(self.words(node)))
            for node in self.root.children
            if _IMPORT.fullmatch(node.type) and not _COMMON.fullmatch(self.words(node))
        ]

    def at(self, byte: int) -> int:
        """The character of a byte."""
        return byte if self._characters is None else bisect_left(self._characters, byte)

    def words(self, node: Node, end: int | None = None) -> str:
        """What a node says up to a byte, on one line."""
        return " ".join(self.text[self.at(node.start_byte) : self.at(node.end_byte if end is None else end)].split())

    def line_start(self, node: Node) -> int | None:
        """The character at which a node's line begins; None where it is not the first of its line."""
        return line_start(self.text, self.at(node.start_byte))

    def imports(self, text: str) -> Iterator[str]:
        """The imports of which a stretch uses a name, the shortest first."""
        used = set(_NAME.findall(text))
        yield from sorted((words for words, names in self._imports if names & used and words not in text), key=len)


_NAME = re.compile(r"\w+")
_COMMON = re.compile(r"(?:from|import) (?:__future__|typing|collections\.abc|dataclasses|abc|enum)\b.*")
"""Imports that say nothing of what code is about."""


def _characters(text: str) -> array[int]:
    """The byte at which each character begins."""
    return array("I", accumulate((len(c.encode("utf-8", "surrogatepass")) for c in text), initial=0))


def _bound(words: str) -> set[str]:
    """The names that an import brings: after Python's `import`, before JavaScript's `from`, else the last of a path."""
    if words.startswith("from ") and " import " in words:
        words = words.partition(" import ")[2]
    elif match := re.match(r"import (.*) from ", words):
        words = match[1]
    return {name for name in re.findall(r"(\w+)[^\w,;{}()]*(?=[,;{}()]|$)", words) if len(name) > 1}


def cut(source: Source, stretch: Stretch, start: int, end: int, size: int) -> list[Unit]:
    """The units of a stretch of code, none of more than `size` tokens: definitions, and runs of what stands between them."""
    found = _cut(source, stretch, source.root.children, start, end, size, (), (), 0)
    return _joined(stretch, found, size)


def _cut(
    source: Source,
    stretch: Stretch,
    nodes: Sequence[Node],
    start: int,
    end: int,
    size: int,
    first: tuple[str, ...],
    within: tuple[str, ...],
    depth: int,
) -> list[Unit]:
    """Units of `start:end`, where `nodes` stand in it; the first of them holds the head of what they stand in."""
    result: list[Unit] = []
    for a, b, inside in _parts(source, nodes, start, end):
        a, b = stretch.trim(a, b)
        if a == b:
            continue
        path = within if result else first
        tokens = stretch.count(a, b)
        definition = next((d for d in map(_definition, inside) if d is not None), None)
        if stretch.fits(a, b, size):
            result.append(Unit(a, b, tokens, path, definition is None))
            continue
        deeper = within if definition is None else (*within, _head(source, definition))
        children = [child for node in inside for child in _children(node)]
        if depth < _DEEPEST and children:
            units = _cut(source, stretch, children, a, b, size, path, deeper, depth + 1)
        else:
            units = [Unit(*span, path if i == 0 else deeper) for i, span in enumerate(fill(stretch, a, b, size, 0))]
        if definition is not None:
            units[0] = replace(units[0], opens=True)
        result += units
    return result


def _parts(source: Source, nodes: Sequence[Node], start: int, end: int) -> Iterator[tuple[int, int, list[Node]]]:
    """A stretch cut where nodes begin a line, comments kept with what they stand above; and the nodes in each part."""
    borders: list[tuple[int, list[Node]]] = [(start, [])]
    above: Node | None = None
    for node in nodes:
        place = source.line_start(node)
        if not start <= source.at(node.start_byte) < end:
            continue
        attached = above is not None and node.start_point[0] - above.end_point[0] <= 1
        if place is None or place <= borders[-1][0] or attached or not node.is_named:
            borders[-1][1].append(node)
        else:
            borders.append((place, [node]))
        above = node if _COMMENT.fullmatch(node.type) else None
    for (a, inside), b in zip(borders, [*(a for a, _ in borders[1:]), end], strict=True):
        yield a, b, inside


def _children(node: Node) -> list[Node]:
    """A node's children, those of its body, and of a definition among decorators, in the place of these."""
    result: list[Node] = []
    for child in node.children:
        if child.children and _WRAPPER.fullmatch(node.type) and _kind(child):
            result += _children(child)
        else:
            result += child.children if child.children and _BODY.fullmatch(child.type) else [child]
    return result


def _definition(node: Node) -> Node | None:
    """The function or class that a node is, perhaps with decorators or `export` around it."""
    while _WRAPPER.fullmatch(node.type):
        inner = next((child for child in node.named_children if _kind(child)), None)
        if inner is None:
            return None
        node = inner
    return node if _DEFINITION.fullmatch(node.type) and node.is_named else None


def _kind(node: Node) -> bool:
    return bool(_DEFINITION.fullmatch(node.type) or _WRAPPER.fullmatch(node.type))


def _head(source: Source, node: Node) -> str:
    """The line that opens a definition, without its body; its name alone where that is long."""
    body = node.child_by_field_name("body") or next((c for c in node.children if _BODY.fullmatch(c.type)), None)
    words = source.words(node, None if body is None else body.start_byte).rstrip(" {:")
    if len(words) > _LONGEST:
        name = node.child_by_field_name("name")
        words = source.words(name) if name is not None else words
    return words if len(words) <= _LONGEST else words[:_LONGEST].rsplit(" ", 1)[0] + " …"


_LONGEST = 100


def _joined(stretch: Stretch, units: Sequence[Unit], size: int) -> list[Unit]:
    """Neighbours put together where both are small or neither is a definition, and what is tiny with what follows it."""
    result: list[Unit] = []
    for unit in units:
        if result and _belong(result[-1], unit, size):
            last = result[-1]
            tokens = stretch.count(last.start, unit.end)
            if stretch.fits(last.start, unit.end, size):
                result[-1] = replace(last, end=unit.end, tokens=tokens, plain=last.plain and unit.plain and not last.opens)
                continue
        result.append(unit)
    return result


def _belong(a: Unit, b: Unit, size: int) -> bool:
    if b.opens:
        return False
    if a.opens or any(unit.plain and unit.tokens <= size // 8 for unit in (a, b)):
        return a.tokens <= size // 8 or b.tokens <= size // 8
    return a.within == b.within and ((a.plain and b.plain) or (a.tokens <= size // 4 and b.tokens <= size // 4))


def title(source: Source, name: str, unit: Unit, tokens: Tokens) -> str:
    """`shop.py (import json) > class Cart > def total(self)`: what a unit stands in; in the room left, imports that it uses."""
    path = " > ".join((name, *unit.within))
    room = TITLE_TOKENS - len(tokens.starts(path))
    chosen: list[str] = []
    for words in source.imports(source.text[unit.start : unit.end]):
        room -= len(tokens.starts(words)) + 2
        if room < 0 or len(chosen) == 3:
            break
        chosen.append(words)
    return " > ".join((f"{name} ({'; '.join(chosen)})" if chosen else name, *unit.within))
