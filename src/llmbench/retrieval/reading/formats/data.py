"""JSON, notebooks and XML as readable text."""

from __future__ import annotations

import json
from typing import Any

from llmbench.retrieval.documents import Unreadable
from llmbench.retrieval.reading import xml
from llmbench.retrieval.reading.formats import html
from llmbench.retrieval.reading.text import decode, markdown_headings
from llmbench.retrieval.reading.writer import Writer

__all__ = ["read_json", "read_notebook", "read_xml"]


def _parsed(data: bytes) -> Any:
    text = decode(data)
    try:
        return json.loads(text)
    except ValueError as error:
        lines = [line for line in text.splitlines() if line.strip()]
        try:  # JSON lines: a value a line
            return [json.loads(line) for line in lines]
        except ValueError:
            raise Unreadable(f"broken JSON ({error})") from None


def read_json(data: bytes, out: Writer) -> None:
    """Adds `path: value` lines; things in a list are set apart by an empty line."""
    value = _parsed(data)
    if isinstance(value, dict) and isinstance(value.get("title"), str):
        out.title = value["title"]
    for entry in value if isinstance(value, list) else [value]:
        gap = 2
        for name, leaf in _leaves(entry):
            out.block(f"{name}: {leaf}" if name else leaf, gap=gap)
            gap = 1


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
    notebook = _parsed(data)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise Unreadable("no notebook of version 4: it has no cells")
    about = notebook.get("metadata")
    kernel = about.get("kernelspec") if isinstance(about, dict) else None
    out.about(language=str(kernel.get("language") or "") if isinstance(kernel, dict) else "")
    for cell in notebook["cells"]:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source"))
        start, end = out.block(source, keep=True)
        if cell.get("cell_type") == "markdown" and end > start:
            headings, _ = markdown_headings(out.clean(source).strip("\n"))
            out.headings += [(start + h.start, start + h.end, h.level, h.text) for h in headings if h.level]
        for result in cell.get("outputs") or ():
            if isinstance(result, dict):
                shown = result.get("data")
                printed = _joined(result.get("text") or (shown.get("text/plain") if isinstance(shown, dict) else ""))
                out.block(printed[:20_000], keep=True)
    if not out.title:
        out.title = next((text for _, _, level, text in out.headings if level == 1), "")


def _joined(text: object) -> str:
    return "".join(map(str, text)) if isinstance(text, list) else str(text or "")


def read_xml(data: bytes, out: Writer) -> None:
    """Adds the text of the elements: `name: text` for a leaf, attributes that hold words beside it."""
    # UTF-16 is decoded here: such files often say that they are UTF-8.
    root = xml.tree(decode(data).encode(), encoding="utf-8") if b"\0" in data[:200] else xml.tree(data)
    if xml.local(root) == "html":
        html.read(data, out)
        return
    stack = [root]
    while stack:
        node = stack.pop()
        children = list(node)
        words = (node.text or "").strip()
        if children and not words and not any((child.tail or "").strip() for child in children):
            stack += reversed(children)
            if len(children) > 1 and out.length:
                out.put("\n")
            continue
        _leaf(node, out)
    if not out.title:
        title = next((node.text for node in root.iter() if xml.local(node) == "title" and node.text), "")
        out.title = title or ""


def _leaf(node: xml.Element, out: Writer) -> None:
    words = "".join(node.itertext()).strip()
    if "<" in words and ">" in words:  # feeds carry HTML as text
        from selectolax.lexbor import LexborHTMLParser

        words = LexborHTMLParser(words).text(separator=" ") or ""
    named = " ".join(words.split())
    if named:
        out.block(f"{xml.local(node)}: {named}", gap=1)
