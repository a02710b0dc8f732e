"""Values to HTML. Everything that a model, a document or a server wrote passes through `plain` or `prose` here."""

from __future__ import annotations

from collections.abc import Container
from html import escape

from .conversation import LETTERS, Passage, Turn
from .prose import cited, growing, plain, prose

__all__ = ["about", "empty", "notice", "past", "plain", "prose", "score", "state", "turn"]

_THUMB = "M2 10h4v11H2zM8 10l4-8c1.7 0 3 1.3 3 3v4h5.5c1.2 0 2 1.1 1.8 2.2l-1.5 8A2 2 0 0 1 18.8 21H8z"
"""A thumb that points up, in 24 by 24."""
_LONG = 24
"""Characters of a model's name from which its side names it in full under the box."""


def turn(turn: Turn, *, side: str, last: bool = False, here: Container[str] = ()) -> str:
    """One question with its answer, passages and figures. `side` makes ids unique on the page.

    The `last` turn has its passages open, and can be asked again. Passages of the models in `here` can be opened in Documents.
    """
    busy = ' aria-busy="true"' if turn.running else ""
    return (
        f'<article class="turn" data-state="{state(turn)}"{busy}>'
        f'<p class="question" dir="auto">{plain(turn.question)}</p>{_note(turn, side, last)}'
        f'{_reasoning(turn, side)}<div class="answer" dir="auto">{_answer(turn)}</div>{_again(turn, side, last)}'
        f"{_figures(turn)}{_votes(turn, side)}"
        f"{_passages(turn, side, last, turn.model in here)}"
        "</article>"
    )


def past(turns: list[Turn], *, side: str, here: Container[str] = ()) -> str:
    """The turns before the current one."""
    return "".join(turn(t, side=f"{side}-{i}", here=here) for i, t in enumerate(turns))


def about(name: str, description: str) -> str:
    """What a variant is, under its box: its description, and its name where the box is too narrow for it."""
    parts = [f"<b>{plain(name)}</b>"] if len(name) > _LONG else []
    parts += [plain(description)] if description else []
    return f'<p title="{escape(name)}" dir="auto">{"<br>".join(parts)}</p>' if parts else ""


def score(value: float, kind: str) -> str:
    """A score with what it measures: a fused one says nothing about another query."""
    names = {
        "fused": ("fused", "Fused score: 1 is the best passage of this query, whether or not it is relevant"),
        "dense": ("cosine", "Cosine similarity of query and passage, -1 to 1"),
        "cosine": ("cosine", "Cosine similarity of query and passage, -1 to 1"),
        "terms": ("BM25", "BM25 score of the query's words, 0 or higher"),
        "rerank": ("rerank", "Reranker score, on the model's own scale"),
    }
    name, title = names.get(kind, (kind or "score", "Score reported by the endpoint"))
    return f'<span class="score" title="{escape(title)}">{escape(name)} {value:.3f}</span>'


def empty(title: str, text: str, *, command: str = "", detail: str = "") -> str:
    """What a page says when it has nothing to show: why, and what to do."""
    code = f'<pre tabindex="0"><code>{escape(command)}</code></pre>' if command else ""
    more = f'<p class="aside">{plain(detail)}</p>' if detail else ""
    return f'<div class="empty" role="status"><h2>{escape(title)}</h2><p>{plain(text)}</p>{code}{more}</div>'


def notice(text: str, kind: str = "error") -> str:
    """One line about what went wrong (`error`) or how things stand (`info`)."""
    return f'<p class="notice" data-kind="{escape(kind)}" role="status">{plain(text)}</p>' if text else ""


def state(turn: Turn) -> str:
    """waiting, writing, done, stopped or failed."""
    if turn.error:
        return "failed"
    if turn.stopped:
        return "stopped"
    if turn.reply is not None:
        return "done"
    return "writing" if turn.text or turn.apart else "waiting"


def _note(turn: Turn, side: str, last: bool) -> str:
    """Who answered, and what makes the answer another matter than those beside it."""
    letter = LETTERS[int(side[0])]
    note = ""
    if turn.note:
        button = f'<button type="button" class="quiet-link" data-again="{escape(side)}:all">Ask all questions again</button>'
        note = f'<span class="note">{letter} {plain(turn.note)}. {button if last and not turn.running else ""}</span>'
    return f'<p class="by"><span>{plain(turn.model)}</span>{note}</p>'


def _again(turn: Turn, side: str, last: bool) -> str:
    if not last or not (turn.error or turn.stopped):
        return ""
    return f'<p><button type="button" class="quiet-link" data-again="{escape(side)}">Ask again</button></p>'


def _reasoning(turn: Turn, side: str) -> str:
    """What the model thought, folded behind a switch whose state is the browser's own."""
    thought = turn.reasoning
    if not thought:
        return ""
    seconds = f" for {_seconds(turn.thought_seconds)}" if turn.thought_seconds is not None else ""
    label = f"Thought{seconds}" if not turn.running or turn.answer.strip() else "Thinking"
    switch = f"reasoning-{escape(side)}"
    drawn = growing(thought) if turn.running else prose(thought)
    return (
        f'<div class="reasoning fold"><input type="checkbox" id="{switch}" aria-label="Show the reasoning">'
        f'<label for="{switch}">{label}</label><div class="thought" dir="auto">{drawn}</div></div>'
    )


def _answer(turn: Turn) -> str:
    text = turn.answer
    draw = growing if turn.running else prose
    parts = [draw(text, {p.n for p in turn.passages})] if text.strip() else []
    if turn.error:
        parts.append(notice(turn.error))
    elif turn.stopped:
        parts.append('<p class="aside">Stopped.</p>')
    elif turn.running and not turn.text and not turn.apart:
        parts.append(
            '<p class="dots" role="img" aria-label="Waiting for the first token"><i></i><i></i><i></i></p>'
            '<p class="aside late">No token for 20 s. The engine is busy or stuck; see its log.</p>'
        )
    elif not text.strip() and turn.reply is not None:
        cut = turn.reply.finish_reason == "length" and turn.reasoning
        why = "No answer: the token limit was reached while the model was still reasoning. Raise Max tokens in the settings."
        parts.append(f'<p class="aside">{why if cut else "The answer is empty."}</p>')
    return "".join(parts)


def _figures(turn: Turn) -> str:
    """Latency, time to the first token, tokens, and tokens by latency: whatever the endpoint reported."""
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
    cut = '<p class="aside">Cut off at the token limit.</p>' if reply.finish_reason == "length" and turn.answer.strip() else ""
    shared = f"Timed while {turn.together} variants were answering at the same time." if turn.together > 1 else ""
    load = f'<p class="aside load">{shared}</p>' if shared else ""
    return f'<dl class="figures">{cells}</dl>{cut}{load}'


def _votes(turn: Turn, side: str) -> str:
    """Up and down, for an answer of a server that takes votes."""
    if turn.reply is None or not turn.reply.request_id or not turn.answer.strip():
        return ""
    buttons = "".join(
        f'<button type="button" class="vote" data-vote="{escape(side)}:{way}" aria-pressed="{str(turn.vote is good).lower()}" '
        f'aria-label="{label}" title="{label}"><svg viewBox="0 0 24 24" aria-hidden="true"><path d="{_THUMB}"/></svg></button>'
        for way, good, label in (("up", True, "Good answer"), ("down", False, "Bad answer"))
    )
    return f'<p class="votes">{buttons}</p>'


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _passages(turn: Turn, side: str, is_open: bool, is_here: bool) -> str:
    """The passages behind a switch whose state is the browser's own, so that an update of the page leaves it as it is."""
    if not turn.passages:
        return ""
    named = cited(turn.answer, {p.n for p in turn.passages}, growing=turn.running)
    items = "".join(_passage(p, cited=p.n in named, button=_opener(p, side) if is_here else "") for p in turn.passages)
    count = len(turn.passages)
    known = sum(p.n in named for p in turn.passages)
    label = f"{count} passage{'s' if count > 1 else ''}" + (f", {known} cited" if known else "")
    switch = f"passages-{escape(side)}"
    box = f'<input type="checkbox" id="{switch}" aria-label="Show the passages"{" checked" if is_open else ""}>'
    return f'<div class="passages fold">{box}<label for="{switch}">{label}</label><ol>{items}</ol></div>'


def _opener(passage: Passage, side: str) -> str:
    """The way to the passage in its document."""
    if passage.span is None:
        return ""
    label = "Open page" if passage.page else "Open document"
    return f'<button type="button" class="opener" data-open="{escape(side)}:{passage.n}">{label}</button>'


def _passage(passage: Passage, *, cited: bool, button: str) -> str:
    figure = "" if passage.score is None else score(passage.score, passage.kind)
    place = plain(passage.source) + (f" · page {passage.page:,}" if passage.page else "")
    return (
        f'<li data-n="{passage.n}"{" data-cited" if cited else ""}>'
        f'<header><b class="n">{passage.n}</b><span class="title" dir="auto" title="{escape(passage.title)}">'
        f"{plain(passage.title)}</span>{figure}</header>"
        f'<p class="source">{place}{button}</p>'
        f'<p class="text" dir="auto">{plain(passage.text)}</p></li>'
    )
