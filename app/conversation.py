"""What each side of the comparison has said: turns with their passages and figures, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbench.endpoint import Delta, Message, Reply

__all__ = ["MAX_SIDES", "Passage", "Session", "Side", "Turn"]

MAX_SIDES = 4
_KEPT_TURNS = 20
"""Turns a side keeps in the browser; a longer conversation forgets its oldest there."""


@dataclass(frozen=True)
class Passage:
    """One retrieved passage under an answer. `score` is the retriever's own; None when the endpoint gave none."""

    n: int
    text: str
    source: str
    title: str
    score: float | None
    page: int | None = None
    span: tuple[int, int] | None = None
    """Start and end in its document's text, where the endpoint told."""

    @classmethod
    def of(cls, raw: Any, position: int) -> Passage:
        """Reads what an endpoint sent, which may be anything."""
        values = raw if isinstance(raw, dict) else {"text": str(raw)}
        n, score, page = values.get("n"), values.get("score"), values.get("page")
        start, end = values.get("start"), values.get("end")
        return cls(
            n=n if isinstance(n, int) else position,
            text=str(values.get("text") or ""),
            source=str(values.get("source") or ""),
            title=str(values.get("title") or values.get("source") or "Passage"),
            score=float(score) if isinstance(score, (int, float)) else None,
            page=page if isinstance(page, int) else None,
            span=(start, end) if isinstance(start, int) and isinstance(end, int) else None,
        )


@dataclass
class Turn:
    """One question and what a side made of it. `reply` has the figures once the answer is whole."""

    question: str
    model: str
    text: str = ""
    passages: tuple[Passage, ...] = ()
    reply: Reply | None = None
    error: str = ""
    stopped: bool = False

    @property
    def running(self) -> bool:
        """Whether more is to come."""
        return self.reply is None and not self.error and not self.stopped

    def take(self, delta: Delta) -> None:
        """Adds a piece of the stream."""
        self.text += delta.text
        if delta.sources:
            self.passages = tuple(Passage.of(raw, n) for n, raw in enumerate(delta.sources, start=1))
        if delta.reply is not None:
            self.reply = delta.reply

    def stored(self) -> dict[str, Any]:
        """The turn as JSON values, to be kept in the browser."""
        reply = self.reply
        figures = reply and [
            reply.latency,
            reply.first_token,
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.finish_reason,
        ]
        passages = [[p.n, p.text, p.source, p.title, p.score, p.page, p.span] for p in self.passages]
        return {
            "question": self.question, "model": self.model, "text": self.text, "passages": passages,
            "figures": figures, "error": self.error, "stopped": self.stopped,
        }  # fmt: skip

    @classmethod
    def restored(cls, values: dict[str, Any]) -> Turn:
        """The turn that `stored` wrote.

        Raises:
            KeyError, TypeError, ValueError: the values are of another shape.
        """
        turn = cls(question=str(values["question"]), model=str(values["model"]), text=str(values["text"]))
        turn.passages = tuple(
            Passage(
                int(n),
                str(text),
                str(source),
                str(title),
                None if score is None else float(score),
                None if page is None else int(page),
                None if span is None else (int(span[0]), int(span[1])),
            )
            for n, text, source, title, score, page, span in values["passages"]
        )
        if values["figures"]:
            latency, first, prompt, completion, finish = values["figures"]
            turn.reply = Reply(
                text=turn.text, model=turn.model, latency=float(latency), first_token=None if first is None else float(first),
                prompt_tokens=int(prompt), completion_tokens=int(completion), finish_reason=str(finish),
            )  # fmt: skip
        turn.error = str(values["error"])
        turn.stopped = bool(values["stopped"]) or turn.running
        return turn


@dataclass
class Side:
    """One column: the variant it asks and its own conversation."""

    model: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, question: str, system: str = "") -> list[Message]:
        """The conversation as the endpoint takes it. Turns that failed before a word was said are left out."""
        messages: list[Message] = [{"role": "system", "content": system}] if system.strip() else []
        for turn in self.turns:
            if turn.text:
                messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.text}]
        return [*messages, {"role": "user", "content": question}]


@dataclass
class Session:
    """One browser tab: the endpoint it talks to and its sides. `shown` are the positions that can be seen."""

    url: str = ""
    api_key: str | None = None
    models: list[str] = field(default_factory=list)
    pipelines: dict[str, str] = field(default_factory=dict)
    """For each model that retrieves with a pipeline that is indexed here too, the pipeline's file."""
    shown: list[int] = field(default_factory=lambda: [0, 1])
    sides: list[Side] = field(default_factory=lambda: [Side() for _ in range(MAX_SIDES)])

    @property
    def talking(self) -> bool:
        """Whether any shown side has said something."""
        return any(self.sides[i].turns for i in self.shown)

    def choose(self, models: Sequence[str]) -> None:
        """Takes the models an endpoint offers, and keeps what each side had chosen where it is still on offer.

        The first two sides start with the first and the last: in a recipe that is the plain base and the richest variant.
        """
        self.models = list(models)
        first = [*models[:1], *models[-1:], *models[1:-1]]
        for i, side in enumerate(self.sides):
            if side.model not in models:
                side.model = first[i % len(first)] if first else ""

    def stored(self) -> dict[str, Any]:
        """What survives a refresh of the page, as JSON values; the key does not."""
        sides = [{"model": s.model, "turns": [t.stored() for t in s.turns[-_KEPT_TURNS:]]} for s in self.sides]
        return {"url": self.url, "shown": self.shown, "sides": sides}

    @classmethod
    def restored(cls, values: Any, url: str) -> Session:
        """The session that `stored` wrote, or a new one at `url` when the browser keeps none, or none that is whole."""
        try:
            session = cls(url=str(values["url"]) or url, shown=[])
            session.shown = sorted({int(i) for i in values["shown"]} & set(range(MAX_SIDES)))
            sides = [Side(str(s["model"]), [Turn.restored(t) for t in s["turns"]]) for s in values["sides"]]
        except (KeyError, TypeError, ValueError):
            return cls(url=url)
        if len(sides) != MAX_SIDES or len(session.shown) < 2:
            return cls(url=url)
        session.sides = sides
        return session
