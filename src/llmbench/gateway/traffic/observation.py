"""What one answer says about each guard-rail."""

from __future__ import annotations

import json
from contextlib import suppress

from llmbench import scoring
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import ANSWERS
from llmbench.gateway.turns import OVERLOADED, TIMED_OUT
from llmbench.message import text_of

__all__ = ["observed"]

_LAST = 8
"""Pieces in which an error is looked for: vLLM sends [DONE] after it."""
_NOT_THE_VARIANTS = ("keys_unavailable", "server_stopping")


def observed(exchange: Exchange, phrase: str) -> dict[str, float] | None:
    """Guard-rail -> its value, as far as the answer has one; None where an exchange is nobody's observation.

    Shares are 1 where the bad thing happened and 0 where it did not, seconds and characters are themselves. No observation:
    what the client did wrong (4xx, a limit of its key among them), and what was refused or cut off because the whole engine was
    unavailable or too busy, since that falls on both variants alike and says nothing about either.

    Args:
        exchange: one that is complete.
        phrase: the pattern by which an abstention is known.
    """
    if exchange.arm is None or exchange.path not in ANSWERS or 400 <= exchange.status < 500 or _engine_gone(exchange):
        return None
    if exchange.status >= 500:
        return {"errors": 1.0}
    first = {"first_token": exchange.first} if exchange.stream and exchange.first else {}
    if exchange.broken:
        return {"errors": 1.0} | first if _last_error(exchange) is not None else dict(first)  # else the client left
    said = exchange.said()
    if said is None:
        return {"errors": 0.0} | first
    text = said.text.strip()
    values = {"errors": float(not text and not said.calls_tools)} | first
    if not exchange.stream:
        values["seconds"] = exchange.seconds
    if not text or said.calls_tools:
        return values
    abstains = scoring.abstains(text, phrase)
    values |= {"length": float(len(text)), "abstention": float(abstains)}
    if exchange.sources:
        values["citations"] = float(not abstains and not _holds(text, exchange))
    return values


def _holds(answer: str, exchange: Exchange) -> bool:
    """Whether an answer cites passages that exist and, with the question, have its numbers and at least half of its words.

    No proof that it is right: a cheap sign that what it says is from where it says.
    """
    cited = {str(n) for n in scoring.cited(answer)}
    passages = {str(source.get("n")): str(source.get("text", "")) for source in exchange.sources or ()}
    if not cited or not cited <= passages.keys():
        return False
    asked = text_of(exchange.conversation[-1]) if exchange.conversation else ""
    known = set(scoring.span_tokens(" ".join([asked, *(passages[n] for n in cited)])))
    words = scoring.span_tokens(scoring.CITATION.sub(" ", answer))
    numbers = {word for word in words if any(map(str.isdigit, word))}
    return numbers <= known and 2 * sum(word in known for word in words) >= len(words)


def _engine_gone(exchange: Exchange) -> bool:
    """Whether the engine, or the place before it, failed both variants alike. The engine's own 503 has no code."""
    if exchange.status == 504 and exchange.error == TIMED_OUT:
        return exchange.engine_at is None  # it was never asked
    if exchange.status >= 500:
        return exchange.status == 503 and exchange.error in (None, "engine_unavailable", OVERLOADED, *_NOT_THE_VARIANTS)
    error = _last_error(exchange)
    return error is not None and error.get("code") == "engine_unavailable"


def _last_error(exchange: Exchange) -> dict[str, str] | None:
    """The error event that a stream ended in."""
    if not (exchange.stream and exchange.broken and exchange.body):
        return None
    for line in reversed(b"".join(exchange.body[-_LAST:]).split(b"\n")):
        if line.startswith((b'data: {"error"', b'data: {"type":"response.failed"')):
            with suppress(ValueError, KeyError):
                event = json.loads(line[5:])
                found = event.get("response", event)["error"]
                return found if isinstance(found, dict) else {"message": str(found)}
            return {}
    return None
