"""Training rows from questions: the passages that a pipeline finds for each, and the answer that these passages warrant.

Retrieval-augmented fine-tuning (RAFT, Zhang et al. 2024, https://arxiv.org/abs/2403.10131): a model is taught with the very
prompts that it will be served with, wrong passages among them, to read, to cite, and to say where nothing is told. What RAFT
answers from memory where the right document is withheld is here answered by abstaining, so that a model is never taught to
state what it was not shown.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from llmbench.compare.metrics import of_source
from llmbench.endpoint import Message
from llmbench.questions import Question
from llmbench.retrieval import Retriever
from llmbench.retrieval.search import asked
from llmbench.scoring import CITATION

__all__ = ["ABSTENTION", "Kind", "Left", "Row", "rows"]

ABSTENTION = "The passages do not say."
"""What a row answers where its passages do not tell; a comparison knows it as an abstention."""

Kind = Literal["answered", "withheld", "not found", "unanswerable"]
"""Why a row's answer is what it is: its passages tell it; the right ones were withheld; the search did not find them; the
documents do not hold it."""

_CITED = re.compile(rf"\s*{CITATION.pattern}")
_END = re.compile(r"[.!?\u3002\uff01\uff1f]*$")


@dataclass(frozen=True)
class Row:
    """One row to train on."""

    id: str
    kind: Kind
    messages: tuple[Message, ...]

    def to_json(self) -> dict[str, Any]:
        """As it is written: `messages` are trained on, the rest is for who reads the file."""
        return {"id": self.id, "kind": self.kind, "messages": list(self.messages)}


@dataclass(frozen=True)
class Left:
    """A question that makes no row, and why."""

    id: str
    reason: str


def rows(
    retriever: Retriever,
    questions: Sequence[Question],
    *,
    withhold: float = 0.15,
    not_found: bool = True,
    cite: bool = True,
    abstention: str = ABSTENTION,
    seed: int = 0,
) -> Iterator[Row | Left]:
    """A row for each question, or why there is none, in the questions' order; the same for the same index and seed.

    A passage is right where it holds the value as words of its own and, if the question names source pages, is of one of them.

    Args:
        retriever: of the pipeline that the model will be served with.
        questions: with a value, or `answerable: false`. Not those that a comparison is to ask.
        withhold: the share of questions, 0 to 1, whose right document is kept out of the search.
        not_found: whether a question of which the search finds no right passage is answered by abstaining; else it is left out.
        cite: whether answers end with the number of the first right passage, as [n].
        abstention: the answer where the passages do not tell.
        seed: of which questions are withheld.

    Raises:
        IndexError_: the index cannot be searched.
        EndpointError: the pipeline expands questions with a model, and it does not answer.
    """
    for question in questions:
        yield _row(retriever, question, withhold, not_found, cite, abstention, seed)


def _row(
    retriever: Retriever, question: Question, withhold: float, not_found: bool, cite: bool, abstention: str, seed: int
) -> Row | Left:
    if question.answerable and question.value is None:
        return Left(question.id, "its value is unknown, so no passage can be verified")
    if not asked(question.question).strip():
        return Left(question.id, "its question is empty")
    found = retriever.ground(_asked(question))
    if not found.sources:
        return Left(question.id, "the pipeline found no passage")
    if not question.answerable:
        return _made(question, "unanswerable", found.messages, abstention)
    right = [source for source in found.sources if _tells(source, question)]
    if right and _drawn(question.id, seed) < withhold:
        other = retriever.ground(_asked(question), where={"source": {"$nin": sorted({str(s["source"]) for s in right})}})
        if other.sources and not any(_may_tell(source, question) for source in other.sources):
            return _made(question, "withheld", other.messages, abstention)
    if right:
        return _made(question, "answered", found.messages, _answer(question, int(right[0]["n"]) if cite else None))
    if any(question.told_by(str(source["text"])) for source in found.sources):
        return Left(question.id, "only passages of other pages contain its value")
    if any(_of_page(source, question) for source in found.sources):
        return Left(question.id, "its page was found, but no passage of it contains the value word for word")
    if not question.sources:
        return Left(question.id, "it names no source, and no passage contains its value word for word")
    if not not_found:
        return Left(question.id, "the search found no correct passage")
    return _made(question, "not found", found.messages, abstention)


def _asked(question: Question) -> list[Message]:
    return [{"role": role, "content": text} for role, text in question.conversation]


def _made(question: Question, kind: Kind, messages: Sequence[Message], answer: str) -> Row:
    return Row(question.id, kind, (*messages, {"role": "assistant", "content": answer}))


def _of_page(source: Mapping[str, Any], question: Question) -> bool:
    return of_source(str(source["source"]), question)


def _tells(source: Mapping[str, Any], question: Question) -> bool:
    """Whether a passage holds the value and is of the right page."""
    return (not question.sources or _of_page(source, question)) and question.told_by(str(source["text"]))


def _may_tell(source: Mapping[str, Any], question: Question) -> bool:
    """Whether a passage or its title holds the value, or it is of the right page: it might tell in other words."""
    return _of_page(source, question) or question.told_by(f"{source['title']}\n{source['text']}")


def _answer(question: Question, number: int | None) -> str:
    """The expected sentence, or else the value, with this citation alone: before the full stop, if that is not the value's."""
    text = _CITED.sub("", question.answer or question.value or "").strip()
    if number is None:
        return text
    stop = _END.search(text)
    at = len(text) if stop is None or any(map(text.endswith, question.wordings)) else stop.start()
    return f"{text[:at]} [{number}]{text[at:]}"


def _drawn(identity: str, seed: int) -> float:
    """A number from 0 to 1 that is a question's own, whatever others there are."""
    digest = hashlib.blake2b(f"{seed}\0{identity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
