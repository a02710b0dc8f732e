"""What each side of the comparison has said: turns with their passages and figures, as plain values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from llmbench.endpoint import Delta, Message, Reply
from llmbench.reasoning import reasoning_apart

__all__ = ["LETTERS", "MAX_SIDES", "Passage", "Session", "Side", "Turn", "unseen"]

MAX_SIDES = 4
LETTERS = "ABCD"


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
    """Start and end in its document's text, where the endpoint gave them."""
    kind: str = ""
    """What the score is: `fused`, `cosine`, ...; empty when the endpoint gave none."""

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
            kind=str(values.get("kind") or ""),
        )


@dataclass
class Turn:
    """One question and what a side made of it. `reply` has the figures once the answer is whole.

    `text` is what came, tags of reasoning included; `thought_seconds` is the time until the answer itself began. `note` says
    what makes this answer not comparable with the others, and `together` how many sides were asked at the same time.
    """

    question: str
    model: str
    text: str = ""
    apart: str = ""
    """Reasoning that the server sent apart from the text."""
    passages: tuple[Passage, ...] = ()
    reply: Reply | None = None
    error: str = ""
    stopped: bool = False
    thought_seconds: float | None = None
    note: str = ""
    together: int = 1
    vote: bool | None = None
    """Whether the user found it good; None until they say so."""
    began: float = field(default_factory=time.monotonic, compare=False)

    @property
    def answer(self) -> str:
        """The answer without its reasoning."""
        return reasoning_apart(self.text)[1]

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered."""
        return "\n\n".join(part for part in (self.apart.strip(), reasoning_apart(self.text)[0]) if part)

    @property
    def running(self) -> bool:
        """Whether more is to come."""
        return self.reply is None and not self.error and not self.stopped

    def take(self, delta: Delta) -> None:
        """Adds a piece of the stream."""
        if not self.text and not self.apart:
            self.began = time.monotonic()
        self.text = _joined(self.text + delta.text)
        self.apart = _joined(self.apart + delta.reasoning)
        if delta.sources:
            self.passages = tuple(Passage.of(raw, n) for n, raw in enumerate(delta.sources, start=1))
        if delta.reply is not None:
            self.reply = delta.reply
        over = delta.reply is not None
        if self.thought_seconds is None and (self.apart or over or "</" in self.text or "[/" in self.text or "<|" in self.text):
            thought, answer = self.reasoning, self.answer.strip()
            self.thought_seconds = time.monotonic() - self.began if thought and (answer or over) else None

    def stored(self) -> dict[str, Any]:
        """The turn as JSON values."""
        reply = self.reply
        figures = reply and [
            reply.latency,
            reply.first_token,
            reply.prompt_tokens,
            reply.completion_tokens,
            reply.finish_reason,
            reply.request_id,
        ]
        passages = [[p.n, p.text, p.source, p.title, p.score, p.page, p.span, p.kind] for p in self.passages]
        return {
            "question": self.question, "model": self.model, "text": self.text, "reasoning": self.apart, "passages": passages,
            "figures": figures, "error": self.error, "stopped": self.stopped, "thought_seconds": self.thought_seconds,
            "note": self.note, "together": self.together, "vote": self.vote,
        }  # fmt: skip

    @classmethod
    def restored(cls, values: dict[str, Any]) -> Turn:
        """The turn that `stored` wrote.

        Raises:
            KeyError, TypeError, ValueError: the values are of another shape.
        """
        turn = cls(question=str(values["question"]), model=str(values["model"]), text=str(values["text"]))
        turn.apart, turn.note = str(values["reasoning"]), str(values["note"])
        turn.together = int(values["together"])
        turn.vote = None if values.get("vote") is None else bool(values["vote"])
        turn.thought_seconds = None if values["thought_seconds"] is None else float(values["thought_seconds"])
        turn.passages = tuple(
            Passage(
                int(n),
                str(text),
                str(source),
                str(title),
                None if score is None else float(score),
                None if page is None else int(page),
                None if span is None else (int(span[0]), int(span[1])),
                str(kind),
            )
            for n, text, source, title, score, page, span, kind in values["passages"]
        )
        if values["figures"]:
            latency, first, prompt, completion, finish, *id = values["figures"]  # no id: kept before there were votes
            turn.reply = Reply(
                text=turn.answer, model=turn.model, latency=float(latency), first_token=None if first is None else float(first),
                prompt_tokens=int(prompt), completion_tokens=int(completion), finish_reason=str(finish),
                request_id=str(id[0]) if id else "",
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
            if turn.answer.strip():
                messages += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return [*messages, {"role": "user", "content": question}]

    @property
    def seen(self) -> list[str]:
        """The questions that a next request would carry."""
        return [turn.question for turn in self.turns if turn.answer.strip()]

    def note(self, all_seen: Sequence[str]) -> str:
        """What makes its next answer another matter than the others', in one line; empty when nothing does.

        Args:
            all_seen: the questions of the side that has seen the most.
        """
        parts = []
        missed = unseen(self.seen, all_seen)
        if missed:
            parts.append(f"has not seen {missed}")
        others = list(dict.fromkeys(turn.model for turn in self.turns if turn.answer.strip() and turn.model != self.model))
        if others:
            parts.append(f"was sent earlier answers by {', '.join(others)}")
        return " and ".join(parts)


def _joined(text: str) -> str:
    """Halves of one character that came in two pieces, put together."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def unseen(seen: Sequence[str], all_seen: Sequence[str]) -> str:
    """Which of the questions are missing: `the first question`, `2 earlier questions`; empty when none is."""
    left = list(seen)
    missed = []
    for position, question in enumerate(all_seen):
        if question in left:
            left.remove(question)
        else:
            missed.append(position)
    match missed:
        case []:
            return ""
        case [0]:
            return "the first question"
        case [position]:
            return f"question {position + 1}"
        case _:
            return f"{len(missed)} earlier questions"


@dataclass
class Session:
    """One browser tab: the endpoint it talks to and its sides. `shown` are the positions that can be seen."""

    url: str = ""
    given: str = ""
    """The URL that the app was opened with. A conversation at it follows the app to another one."""
    id: str = ""
    """Where it is kept; empty for one that is not."""
    problem: str = ""
    """Why the endpoint cannot answer; empty while it can."""
    stage: Any = None
    """How the engine stood when it was last looked at, where the app itself started it."""
    descriptions: dict[str, str] = field(default_factory=dict)
    """What the endpoint says about each model, where it says something."""
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

    def seen_before(self, question: str) -> list[str]:
        """The questions before this one that the shown side with the longest conversation has seen.

        A side that has been asked this question already, as when one side alone is asked again, has it last.
        """
        seen = []
        for i in self.shown:
            turns = self.sides[i].turns
            asked = bool(turns) and turns[-1].question == question
            seen.append(Side(turns=turns[:-1] if asked else turns).seen)
        return max(seen, key=len)

    def stored(self) -> dict[str, Any]:
        """What survives a refresh of the page and a restart of the app, as JSON values; the key does not."""
        sides = [{"model": s.model, "turns": [t.stored() for t in s.turns]} for s in self.sides]
        return {"url": "" if self.url == self.given else self.url, "shown": self.shown, "sides": sides}

    @classmethod
    def restored(cls, values: Any, url: str) -> Session:
        """The session that `stored` wrote, in an app that was opened with `url`.

        Raises:
            ValueError: the values are of another shape.
        """
        try:
            session = cls(url=str(values["url"]) or url, given=url, shown=[])
            session.shown = sorted({int(i) for i in values["shown"]} & set(range(MAX_SIDES)))
            session.sides = [Side(str(s["model"]), [Turn.restored(t) for t in s["turns"]]) for s in values["sides"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"not a conversation: {error}") from error
        if len(session.sides) != MAX_SIDES or len(session.shown) < 2:
            raise ValueError("not a conversation of these variants")
        return session
