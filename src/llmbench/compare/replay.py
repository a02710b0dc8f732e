"""The same questions once more: whether the answers that a comparison kept come again, and if not, what has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from typing import Any, Literal

from llmbench import workspace
from llmbench.compare import prompts, questions
from llmbench.compare.answers import Answer, AnswerLog, Cell, Place
from llmbench.compare.ask import Endpoint
from llmbench.compare.asking import Asking, AskingWatch
from llmbench.compare.passages import freeze
from llmbench.errors import LlmbenchError
from llmbench.recipe import CompareRecipe

__all__ = ["ComparisonReplay", "Drift", "VariantReplay", "replay", "verdict_of"]

State = Literal["same bits", "same tokens", "drifted", "failed"]
_MOMENTARY = ("at",)
"""What is another in every manifest."""


@dataclass(frozen=True)
class Drift:
    """One answer that came otherwise: what it was, what it is, and the character at which they part."""

    id: str
    repeat: int
    before: str
    now: str
    at: int


@dataclass(frozen=True)
class VariantReplay:
    """How the answers of one variant came again.

    `same_tokens` are those of which the bits differ or are not known. `first` is the first difference in the order of the
    questions, `changed` what the manifests say has changed since, such as `engine: vllm 0.32.0 -> vllm 0.33.0`.
    """

    variant: str
    same_bits: int = 0
    same_tokens: int = 0
    drifted: int = 0
    failed: int = 0
    first: Drift | None = None
    changed: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """The worst that was found."""
        if self.drifted:
            return "drifted"
        if self.failed:
            return "failed"
        return "same tokens" if self.same_tokens else "same bits"


@dataclass(frozen=True)
class ComparisonReplay:
    """The replay of one comparison."""

    name: str
    variants: tuple[VariantReplay, ...]
    with_bits: bool
    """Whether log-probabilities were kept, without which the same bits cannot be told from the same tokens."""

    @property
    def holds(self) -> bool:
        """Whether every answer came again."""
        return not any(one.drifted or one.failed for one in self.variants)

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self) | {"holds": self.holds}


def replay(recipe: CompareRecipe, *, watched: AskingWatch | None = None, endpoint: Endpoint | None = None) -> ComparisonReplay:
    """Asks again what the comparison has answers to, and compares. Nothing is written.

    Args:
        recipe: the comparison's.
        watched: who is told how far it is.
        endpoint: another one than the recipe's URL, for tests.

    Raises:
        LlmbenchError: the comparison has no answers, or they cannot be asked for again.
    """
    asked = questions.read(recipe.questions)
    prompts.check(asked, recipe.compared)
    folder = workspace.comparisons() / recipe.name
    kept = AnswerLog(folder / "answers.jsonl")
    places = [(q.id, name, repeat) for q in asked for name in recipe.names for repeat in range(recipe.repeats)]
    before = {place: one for place in places if (one := kept.answer(place[:2], place[2])) is not None and one.error is None}
    if not before:
        raise LlmbenchError(
            f"The comparison {recipe.name} has no answers to these questions yet. Ask first: llmbench compare {recipe.source}"
        )
    with workspace.lock(folder, "comparison"):
        bits = any(answer.bits for answer in before.values())
        again = recipe.model_copy(update={"logprobs": bits})
        frozen = freeze(recipe.passages, asked, folder) if recipe.passages is not None else None
        heard = _Heard(before.keys())
        Asking(again, asked, frozen, watched=watched or AskingWatch(), endpoint=endpoint).fill(heard)
    found = tuple(_of_variant(name, before, heard.answers) for name in recipe.names)
    return ComparisonReplay(recipe.name, found, bits)


class _Heard:
    """What came this time. Only what was answered before is asked."""

    def __init__(self, wanted: Any) -> None:
        self._wanted = set(wanted)
        self.answers: dict[Place, Answer] = {}

    def has(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        return (*cell, repeat) not in self._wanted

    def settled(self, cell: Cell, key: str, repeat: int = 0) -> bool:
        return (*cell, repeat) in self.answers

    def append(self, answer: Answer) -> None:
        self.answers[answer.place] = answer


def verdict_of(before: Answer, now: Answer) -> State:
    """What two answers to the same request are to each other."""
    if now.error is not None:
        return "failed"
    same = (before.text, before.turns, before.tool_calls) == (now.text, now.turns, now.tool_calls)
    if not same or before.completion_tokens != now.completion_tokens:
        return "drifted"
    if before.bits and before.bits == now.bits:
        return "same bits"
    if before.tokens and now.tokens and before.tokens != now.tokens:
        return "drifted"  # other tokens that spell the same
    return "same tokens"


def _of_variant(name: str, before: Mapping[Place, Answer], now: Mapping[Place, Answer]) -> VariantReplay:
    states: list[State] = []
    first: Drift | None = None
    changed: dict[str, None] = {}
    for place, old in before.items():
        if place[1] != name or place not in now:
            continue
        new = now[place]
        states.append(verdict_of(old, new))
        if new.error is None:
            changed |= dict.fromkeys(_changes(old.manifest, new.manifest))
        if first is None and states[-1] in ("drifted", "failed"):
            first = _drift(old, new)
    return VariantReplay(
        name,
        states.count("same bits"), states.count("same tokens"), states.count("drifted"), states.count("failed"),
        first, tuple(changed),
    )  # fmt: skip


def _drift(old: Answer, new: Answer) -> Drift:
    said, says = _said(old), new.error or _said(new)
    at = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(said, says, strict=False)))
    return Drift(old.id, old.repeat, said, says, at)


def _said(answer: Answer) -> str:
    """All that an answer says, its turns and the calls of tools."""
    calls = [
        f"{call.get('function', {}).get('name')}({call.get('function', {}).get('arguments')})" for call in answer.tool_calls
    ]
    return "\n".join([*(answer.turns or (answer.text,)), *calls])


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Each part of a manifest that is another one, as `part: before -> now`."""
    keys: Sequence[str] = [key for key in {**old, **new} if key not in _MOMENTARY]
    if not old:
        return []
    return [f"{key}: {_short(old.get(key))} -> {_short(new.get(key))}" for key in keys if old.get(key) != new.get(key)]


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(str(one) for one in value.values())
    return "none" if value is None else str(value)
