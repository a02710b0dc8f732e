"""The whole document: it needs nothing else, works offline, and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib import resources
from typing import Any

from llmbench.page.parts import text
from llmbench.shown import legible

__all__ = ["document", "mark"]


def document(name: str, kind: str, body: str, *, style: str = "", script: str = "", data: Any = None) -> str:
    """A page as one file.

    Its Content-Security-Policy lets it load nothing, send nothing, and run no script but the one that is given here.

    Args:
        name: what the page is about, as anybody may have written it.
        kind: what the page is, such as `data report`; llmbench's own words.
        body: HTML, in which what others wrote went through `text`.
        style: CSS that only this page needs, after the style that all pages share.
        script: JavaScript that only this page needs.
        data: what the script reads from the element `data`, as JSON; None for a page without one.
    """
    ours = resources.files("llmbench.page").joinpath("page.css").read_text(encoding="utf-8")
    block = f'<script type="application/json" id="data">{_json(data)}</script>\n' if data is not None else ""
    run = f"<script>{script}</script>" if script else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy(script)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f'{_generator(kind)}<link rel="icon" href="data:,"><title>{text(name)} - llmbench {kind}</title>'
        f"<style>{ours}{style}</style></head>\n<body><main>{body}</main>\n{block}{run}</body></html>\n"
    )


def mark(kind: str) -> str:
    """The regular expression by which a page of this kind is known as llmbench's (`written.check_file`)."""
    return re.escape(_generator(kind))


def _generator(kind: str) -> str:
    return f'<meta name="generator" content="llmbench {kind}">'


def _policy(script: str) -> str:
    allowed = ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data:"]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed.append(f"script-src 'sha256-{digest}'")
    return "; ".join([*allowed, "base-uri 'none'", "form-action 'none'"])  # the last two do not follow from default-src


def _json(data: Any) -> str:
    """JSON without a "<", so that no text in it can end the script element; characters that turn text are written out."""
    return json.dumps(_legible(data), ensure_ascii=False).replace("<", "\\u003c")


def _legible(value: Any) -> Any:
    match value:
        case str():
            return legible(value)
        case dict():
            return {key: _legible(one) for key, one in value.items()}
        case list() | tuple():
            return [_legible(one) for one in value]
    return value
