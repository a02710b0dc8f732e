"""What the pages are made of: text that others wrote, and the parts that every page has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from llmbench.shown import visible

__all__ = ["facts", "header", "notes", "section", "table", "text"]


def text(value: str) -> str:
    """What somebody wrote, as text: escaped, with what cannot be seen or would turn its direction written out."""
    return escape(visible(value))


def header(kind: str, name: str, claim: str, *more: str) -> str:
    """The top of a page: what it is and of what, what it comes to, and any further parts.

    Args:
        kind: what the page is, as `document` has it.
        name: as anybody may have written it.
        claim: HTML, as `more` is.
        more: what stands below the claim, from top to bottom.
    """
    over = f'<p class="over">llmbench {kind} <b dir="auto">{text(name)}</b></p>'
    return f"<header>{over}<h1>{claim}</h1>{''.join(more)}</header>"


def facts(values: Mapping[str, str]) -> str:
    """Words with what they stand for, in a row; the values are HTML."""
    items = "".join(f'<div><dt>{word}</dt><dd dir="auto">{value}</dd></div>' for word, value in values.items())
    return f'<dl class="facts">{items}</dl>'


def notes(found: Iterable[tuple[str, str]]) -> str:
    """Sentences that a reader has to know, each with its level (note, warning, error, refused) and its HTML; empty for none."""
    items = "".join(f'<li class="{level}"><span class="level">{level}</span>{html}</li>' for level, html in found)
    return f'<ul class="notes">{items}</ul>' if items else ""


def section(title: str, inner: str, *, lead: str = "", place: str = "") -> str:
    """A part of the page below its heading.

    Args:
        title: as anybody may have written it.
        inner: HTML, as `lead` is.
        lead: a sentence about what is below, such as how to read it.
        place: the id of its element, for links and scripts.
    """
    about = f'<p class="lead">{lead}</p>' if lead else ""
    named = f' id="{place}"' if place else ""
    return f"<section{named}><h2>{text(title)}</h2>{about}{inner}</section>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls in its own box. Cells are HTML; the first of a row names it."""
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{cell}</td>" for cell in row[1:])}</tr>' for row in rows)
    return f'<div class="card scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
