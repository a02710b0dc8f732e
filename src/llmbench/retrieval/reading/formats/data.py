"""JSON, property lists and notebooks as readable text."""

from __future__ import annotations

import json
import plistlib
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.text import decode, markdown_headings
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read_json", "read_notebook", "read_plist"]


_STRICT = 100
"""Values that are broken in one file, after which a value is looked for on one line only."""
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_COMMENT = re.compile(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?(?:\*/|\Z)', re.DOTALL)
_LAST_COMMA = re.compile(r'"(?:[^"\\]|\\.)*"|,(?=\s*[}\]])', re.DOTALL)


def read_json(data: bytes, out: Writer) -> None:
    """Adds `path: value` lines; things in a list are set apart by an empty line. What is no JSON stays as it is."""
    text = decode(data)
    try:
        value = json.loads(text, strict=False)
    except ValueError:
        _values(text, out)
        return
    if isinstance(value, dict) and isinstance(value.get("title"), str):
        out.title = value["title"]
    for entry in value if isinstance(value, list) else [value]:
        _entry(entry, out)


def read_plist(data: bytes, out: Writer) -> None:
    """Reads an Apple property list, XML or binary, like JSON; bytes in it are left out.

    Raises:
        Unreadable: it is neither.
    """
    try:
        value = plistlib.loads(data)
    except Exception as error:  # plistlib raises many things on broken files
        raise Unreadable(f"broken property list ({error})") from None
    for entry in value if isinstance(value, list) else [value]:
        _entry(json.loads(json.dumps(entry, default=_told)), out)


def _told(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else ""


def _entry(entry: Any, out: Writer) -> None:
    gap = 2
    for name, leaf in _leaves(entry):
        out.block(f"{name}: {leaf}" if name else leaf, gap=gap)
        gap = 1


def _values(text: str, out: Writer) -> None:
    """Adds what is not one JSON value: a value with comments, or several one after another (JSON lines, logs)."""
    try:
        _entry(json.loads(_plain_json(text), strict=False), out)
        return
    except ValueError:
        pass
    broken: list[int] = []
    for value, line, words in _sequence(text):
        if words:
            broken.append(line)
            out.block(words, gap=1, keep=True)
        else:
            _entry(value, out)
    if broken:
        lines = ", ".join(map(str, broken[:5])) + (", ..." if len(broken) > 5 else "")
        out.warnings.append(f"not JSON, read as text: line{'s' if len(broken) > 1 else ''} {lines}")


def _plain_json(text: str) -> str:
    """Without comments and last commas, as settings have them. A comment that nothing ends stays."""
    text = _COMMENT.sub(lambda found: " " if found[0].startswith("//") or found[0].endswith("*/") else found[0], text)
    return _LAST_COMMA.sub(lambda found: found[0] if found[0].startswith('"') else "", text)


def _sequence(text: str) -> Iterator[tuple[Any, int, str]]:
    """Value after value, each with the line on which it begins; or the words of a line that is none."""
    decoder, at, failed = json.JSONDecoder(strict=False), 0, 0
    counted, line = 0, 1
    begin = re.compile(r"[\s,\[]*")
    whole = text.lstrip().startswith("[")
    while at < len(text):
        found = begin.match(text, at) if whole else re.compile(r"\s*").match(text, at)
        assert found is not None
        at = found.end()
        if at == len(text):
            return
        line, counted = line + text.count("\n", counted, at), at
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        try:
            if failed < _STRICT:
                value, stop = decoder.raw_decode(text, at)
            else:
                value, length = decoder.raw_decode(text[at:end])
                stop = at + length
            if not isinstance(value, (dict, list)) and text[stop:end].strip(" \t\r,]"):
                raise ValueError
        except ValueError:
            failed += 1
            words = text[at:end].strip()
            if words.strip("[]{},"):
                yield None, line, words
            at = end
        else:
            yield value, line, ""
            at = stop


def _leaves(value: Any) -> list[tuple[str, str]]:
    """The values in it, each with the names that lead to it."""
    found: list[tuple[str, str]] = []
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        name, node = stack.pop()
        match node:
            case dict():
                stack += [(f"{name}.{key}" if name else str(key), child) for key, child in reversed(node.items())]
            case list() if all(not isinstance(child, (dict, list)) for child in node):
                found.append((name, ", ".join(_plain(child) for child in node)))
            case list():
                stack += [(name, child) for child in reversed(node)]
            case _:
                found.append((name, _plain(node)))
    return [(name, text) for name, text in found if text]


def _plain(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case _:
            return str(value)


def read_notebook(data: bytes, out: Writer) -> None:
    """Adds a notebook's cells: Markdown with its headings, code, and the text that it printed."""
    try:
        notebook = json.loads(decode(data), strict=False)
    except ValueError:
        read_json(data, out)
        return
    sheets = notebook.get("worksheets") if isinstance(notebook, dict) else None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if cells is None and isinstance(sheets, list):  # version 3
        cells = [cell for sheet in sheets if isinstance(sheet, dict) for cell in sheet.get("cells") or ()]
    if not isinstance(cells, list):
        raise Unreadable("not a notebook: it has no cells")
    about = notebook.get("metadata")
    kernel = about.get("kernelspec") if isinstance(about, dict) else None
    out.about(language=str(kernel.get("language") or "") if isinstance(kernel, dict) else "")
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source", cell.get("input")))
        if cell.get("cell_type") == "heading":  # version 3
            level = cell.get("level")
            out.heading(source, level if isinstance(level, int) and 0 < level < 7 else 1)
            continue
        start, end = out.block(source, keep=True)
        if cell.get("cell_type") == "markdown" and end > start:
            headings, _ = markdown_headings(out.clean(source).strip("\n"))
            out.headings += [(start + h.start, start + h.end, h.level, h.text) for h in headings if h.level]
        for result in cell.get("outputs") or ():
            if isinstance(result, dict):
                _result(result, out)
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


def _result(result: dict[str, Any], out: Writer) -> None:
    """Adds what a cell has printed, shown or failed with."""
    shown = result.get("data")
    shown = shown if isinstance(shown, dict) else {}
    if result.get("ename"):
        out.block(_ANSI.sub("", f"{result['ename']}: {_joined(result.get('evalue'))}"))
    printed = next(filter(None, (_joined(text) for text in (result.get("text"), shown.get("text/markdown")))), "")
    printed = printed or _joined(shown.get("text/plain"))
    if not printed and not shown.get("text/html"):
        printed = _joined(shown.get("text/latex"))
    page = _joined(shown.get("text/html"))
    if page and not printed:
        html.flow(page[:200_000], out)
    out.block(_ANSI.sub("", printed)[:20_000], keep=True)


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")
