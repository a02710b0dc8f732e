"""Values to HTML. Everything that a model, a document or a server wrote passes through `escape` or `prose` here."""

from __future__ import annotations

import re
from collections.abc import Container
from functools import cache
from html import escape

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

from .conversation import Passage, Turn

__all__ = ["empty", "notice", "past", "prose", "turn"]

_CITATION = re.compile(r"\[(\d{1,3})\](?!\()")
_LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)


def prose(text: str) -> str:
    """A model's Markdown as inert HTML.

    HTML in it is shown as text, links are http, https or mailto and open elsewhere, and images are links: nothing is
    fetched because a model wrote it. `[n]` becomes a button that points to passage n.
    """
    html: str = _markdown().render(text)
    return html


def turn(turn: Turn, *, side: str, open_passages: bool = True, here: Container[str] = ()) -> str:
    """One question with its answer, passages and figures. `side` makes ids unique on the page.

    Passages of the models in `here` can be opened in Documents.
    """
    return (
        f'<article class="turn" data-state="{_state(turn)}">'
        f'<p class="question">{escape(turn.question)}</p>'
        f'<div class="answer">{_answer(turn)}</div>'
        f"{_figures(turn)}"
        f"{_passages(turn, side, open_passages, turn.model in here)}"
        "</article>"
    )


def past(turns: list[Turn], *, side: str, here: Container[str] = ()) -> str:
    """The turns before the current one."""
    return "".join(turn(t, side=f"{side}-{i}", open_passages=False, here=here) for i, t in enumerate(turns))


def empty(title: str, text: str, *, command: str = "") -> str:
    """What a page says when it has nothing to show: why, and what to do."""
    code = f"<pre><code>{escape(command)}</code></pre>" if command else ""
    return f'<div class="empty"><h3>{escape(title)}</h3><p>{escape(text)}</p>{code}</div>'


def notice(text: str, kind: str = "error") -> str:
    """One line about what went wrong (`error`) or how things stand (`info`)."""
    return f'<p class="notice" data-kind="{escape(kind)}" role="status">{escape(text)}</p>' if text else ""


def _state(turn: Turn) -> str:
    if turn.error:
        return "failed"
    if turn.stopped:
        return "stopped"
    if turn.reply is not None:
        return "done"
    return "writing" if turn.text else "waiting"


def _answer(turn: Turn) -> str:
    parts = [prose(turn.text)] if turn.text else []
    if turn.error:
        parts.append(notice(turn.error))
    elif turn.stopped:
        parts.append('<p class="aside">Stopped.</p>')
    elif turn.running and not turn.text:
        parts.append('<p class="dots" aria-label="Waiting for the first token"><i></i><i></i><i></i></p>')
    elif not turn.text.strip() and turn.reply is not None:
        parts.append('<p class="aside">The answer is empty.</p>')
    return "".join(parts)


def _figures(turn: Turn) -> str:
    """Latency, time to the first token, tokens, and tokens by latency: whatever the endpoint told."""
    reply = turn.reply
    if reply is None:
        return '<dl class="figures"></dl>'
    figures = [("Latency", _seconds(reply.latency))]
    if reply.first_token is not None:
        figures.append(("First token", _seconds(reply.first_token)))
    if reply.completion_tokens:
        figures.append(("Tokens", f"{reply.completion_tokens:,}"))
        # By the whole latency: a short answer may arrive at once, and the time after its first token says nothing then.
        figures.append(("Tokens/s", f"{reply.completion_tokens / reply.latency:,.0f}"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in figures)
    cut = '<p class="aside">Cut off at the token limit.</p>' if reply.finish_reason == "length" else ""
    return f'<dl class="figures">{cells}</dl>{cut}'


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _passages(turn: Turn, side: str, is_open: bool, is_here: bool) -> str:
    """The passages behind a switch whose state is the browser's own, so that an update of the page leaves it as it is."""
    if not turn.passages:
        return ""
    cited = {int(n) for n in _CITATION.findall(turn.text)}
    items = "".join(_passage(p, cited=p.n in cited, button=_opener(p, side) if is_here else "") for p in turn.passages)
    count = len(turn.passages)
    known = sum(p.n in cited for p in turn.passages)
    label = f"{count} passage{'s' if count > 1 else ''}" + (f", {known} cited" if known else "")
    switch = f"passages-{escape(side)}"
    box = f'<input type="checkbox" id="{switch}"{" checked" if is_open else ""}>'
    return f'<div class="passages">{box}<label for="{switch}">{label}</label><ol>{items}</ol></div>'


def _opener(passage: Passage, side: str) -> str:
    """The way to the passage in its document."""
    if passage.span is None:
        return ""
    label = "Show the page" if passage.page else "Show in its document"
    return f'<button type="button" class="opener" data-open="{escape(side)}:{passage.n}">{label}</button>'


def _passage(passage: Passage, *, cited: bool, button: str) -> str:
    score = "" if passage.score is None else f'<span class="score" title="Similarity">{passage.score:.2f}</span>'
    place = escape(passage.source) + (f" · page {passage.page:,}" if passage.page else "")
    return (
        f'<li data-n="{passage.n}"{" data-cited" if cited else ""}>'
        f'<header><b class="n">{passage.n}</b><span class="title">{escape(passage.title)}</span>{score}</header>'
        f'<p class="source">{place}{button}</p>'
        f'<p class="text">{escape(passage.text)}</p></li>'
    )


@cache
def _markdown() -> MarkdownIt:
    md = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    md.disable(["image", "reference"])
    md.validateLink = _is_link  # type: ignore[method-assign]
    md.inline.ruler.before("link", "citation", _read_citation)
    md.add_render_rule("citation", _write_citation)
    md.add_render_rule("link_open", _write_link)
    return md


def _is_link(url: str) -> bool:
    return _LINK.match(url) is not None


def _read_citation(state: StateInline, silent: bool) -> bool:
    found = _CITATION.match(state.src, state.pos)
    if found is None:
        return False
    if not silent:
        state.push("citation", "", 0).content = found[1]
    state.pos = found.end()
    return True


def _write_citation(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    n = tokens[index].content
    return f'<button type="button" class="cite" data-cite="{n}" title="Show passage {n}">{n}</button>'


def _write_link(renderer: RendererHTML, tokens: list[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    href = escape(str(tokens[index].attrs.get("href", "")))
    return f'<a href="{href}" target="_blank" rel="noopener noreferrer nofollow">'
