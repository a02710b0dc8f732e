"""Votes as rows to train on, split by question so that nothing is trained on and tested, each row with where it comes from.

| format | a row | from |
|---|---|---|
| dpo | `prompt`, `chosen`, `rejected` | each pair of answers that most voters decided the same way |
| kto | `prompt`, `completion`, `label` | its better answer (true) and its worse one (false); both (false) where both are bad |
| sft | `messages` | its better answer |
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llmbench.errors import DataError
from llmbench.votes import tally
from llmbench.votes.result import current_answers
from llmbench.votes.store import VoteStore, path
from llmbench.votes.values import AnswerPair, Ballot

__all__ = ["FORMATS", "ExportedVotes", "Format", "export"]

Format = Literal["dpo", "kto", "sft"]
FORMATS: tuple[Format, ...] = ("dpo", "kto", "sft")
_TESTS = frozenset(
    {"test", "tests", "testing", "eval", "evaluation", "validation", "valid", "val", "dev", "held-out", "holdout"}
)
"""Splits whose questions are asked to measure: what is trained on them can be measured by them no longer."""
_PARTS = 10_000


@dataclass(frozen=True)
class ExportedVotes:
    """Rows to train on, and the questions that were set apart to compare on next.

    `left` is reason -> pairs that make no row. `trained` and `held` count questions; no page is in both.
    """

    rows: tuple[dict[str, Any], ...]
    questions: tuple[dict[str, Any], ...]
    left: Mapping[str, int]
    trained: int
    held: int


@dataclass
class _Said:
    """What voters said of one pair."""

    counts: Counter[str] = field(default_factory=Counter)
    voters: list[str] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    last: float = 0.0


def export(
    name: str, format_: Format, *, hold_out: float = 0.0, without: Collection[str] = (), least: int = 1, named: bool = False
) -> ExportedVotes:
    """The rows.

    Args:
        name: of a comparison that was voted on, or of imported votes.
        format_: of the rows.
        hold_out: the share of questions, 0 to 1, of which nothing is trained on. Questions of one page go together, and by
            their own hash: whatever is exported later, a question that was set apart once stays so at the same share.
        without: voters whose votes do not count.
        least: decided votes that a pair needs.
        named: whether rows name voters; else a voter is a hash that tells only which rows are of the same one.

    Raises:
        DataError: no pair makes a row, or the votes are on questions of a test split and none are held out.
        LlmbenchError: there are no votes of this name.
    """
    with VoteStore(path(name), new=False) as store:
        ballots = [one for one in store.ballots() if one.voter not in without]
        questions, texts, variants = store.questions(), store.answers(), store.variants()
        salt, compared = str(store.fact("salt")), store.fact("comparison")
    counting = tally.current(ballots, current_answers(compared))
    _refuse_tests(name, counting, questions, hold_out)
    held = {one.item.question for one in counting if _share(one.item.group) < hold_out}
    left: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    for item, said in _together(counting, salt, named).items():
        if item.question in held:
            left["its question is held out"] += 1
            continue
        if why := _unfit(item, said, format_, least, texts):
            left[why] += 1
            continue
        about = _about(name, item, said, variants, questions)
        rows += [row | about for row in _rows(item, said, format_, questions[item.question], texts)]
    if not rows:
        raise DataError(f"{name}: no vote makes a row for {format_}{_why(left)}. Vote more: llmbench vote {name}")
    trained = {row["question_id"] for row in rows}
    kept = tuple(_question(questions[id]) for id in sorted(held))
    return ExportedVotes(tuple(rows), kept, dict(left), len(trained), len(held))


def _refuse_tests(name: str, counting: Sequence[Ballot], questions: Mapping[str, Mapping[str, Any]], hold_out: float) -> None:
    """Questions that measure must not be trained on, unless a part of them is set apart to measure with."""
    splits = Counter(str(questions[one.item.question].get("split") or "").lower() for one in counting)
    tests = sorted(split for split in splits if split in _TESTS)
    if tests and not hold_out:
        raise DataError(
            f"{name}: {sum(splits[split] for split in tests):,} votes are on questions of split {', '.join(tests)}, which are "
            "asked to measure: a model trained on them cannot be measured by them. Vote on a comparison of another split, or "
            "set questions apart and compare on those alone: --hold-out 0.3"
        )


def _share(group: str) -> float:
    """Where a page lies between 0 and 1, the same for ever."""
    return int.from_bytes(hashlib.sha256(f"llmbench votes {group}".encode()).digest()[:8]) % _PARTS / _PARTS


def _together(counting: Sequence[Ballot], salt: str, named: bool) -> dict[AnswerPair, _Said]:
    """What was said of each pair; of who voted twice on it, the last."""
    last = {(one.item, one.voter): one for one in counting}
    found: dict[AnswerPair, _Said] = {}
    for (item, voter), one in last.items():
        said = found.setdefault(item, _Said())
        said.counts[one.winner] += 1
        said.voters.append(voter if named else hashlib.sha256(f"{salt}/{voter}".encode()).hexdigest()[:12])
        said.reasons.update(one.reasons)
        said.last = max(said.last, one.time)
    return found


def _unfit(item: AnswerPair, said: _Said, format_: Format, least: int, texts: Mapping[str, str]) -> str | None:
    """Why a pair makes no row; None where it does."""
    a, b, bad = said.counts["model_a"], said.counts["model_b"], said.counts["both_bad"]
    if format_ == "kto" and bad > a + b:
        return None
    if a == b:
        return "its voters are divided" if a else "no voter decided between its answers"
    if a + b < least:
        return f"fewer than {least} voters decided"
    if max(a, b) <= said.counts["tie"] + bad:
        return "most of its voters saw a tie, or two bad answers"
    better = texts[item.a if a > b else item.b]
    return None if better.strip() else "its better answer is empty"


def _rows(
    item: AnswerPair, said: _Said, format_: Format, question: Mapping[str, Any], texts: Mapping[str, str]
) -> Iterator[dict[str, Any]]:
    prompt = [{"role": role, "content": text} for role, text in question["conversation"]]
    a, b = said.counts["model_a"], said.counts["model_b"]
    if a == b or (format_ == "kto" and said.counts["both_bad"] > a + b):
        for model, hash in ((item.model_a, item.a), (item.model_b, item.b)):
            yield {"prompt": prompt, "completion": _answer(texts[hash]), "label": False, "variant": model, "answer": hash}
        return
    (good, good_text), (bad, bad_text) = ((item.model_a, item.a), (item.model_b, item.b))[:: 1 if a > b else -1]
    sides = {
        "chosen_variant": good, "rejected_variant": bad, "chosen_answer": good_text, "rejected_answer": bad_text,
    }  # fmt: skip
    match format_:
        case "dpo":
            yield {"prompt": prompt, "chosen": _answer(texts[good_text]), "rejected": _answer(texts[bad_text])} | sides
        case "kto":
            for model, hash, label in ((good, good_text, True), (bad, bad_text, False)):
                yield {"prompt": prompt, "completion": _answer(texts[hash]), "label": label, "variant": model, "answer": hash}
        case "sft":
            yield {"messages": [*prompt, *_answer(texts[good_text])]} | sides


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _about(
    name: str,
    item: AnswerPair,
    said: _Said,
    variants: Mapping[str, Mapping[str, Any]],
    questions: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Where a row comes from: the comparison, question, variants as they were served, and what voters said."""
    return {
        "comparison": name,
        "question_id": item.question,
        "question_group": item.group,
        "question_split": questions[item.question].get("split"),
        "turn": item.turn,
        "variants": {model: _fingerprint(variants.get(model, {})) for model in (item.model_a, item.model_b)},
        "votes": dict(sorted(said.counts.items())),
        "voters": sorted(said.voters),
        "reasons": dict(said.reasons.most_common()),
        "voted": said.last,
    }


def _fingerprint(listing: Mapping[str, Any]) -> str:
    """A hash of what the endpoint listed about a variant: its adapter, base and pipeline."""
    return hashlib.sha256(json.dumps(dict(listing), sort_keys=True).encode()).hexdigest()[:16]


def _question(question: Mapping[str, Any]) -> dict[str, Any]:
    """A question as a question file has it."""
    turns = question["conversation"]
    text = turns[0][1] if len(turns) == 1 else [{"role": role, "content": text} for role, text in turns]
    known: dict[str, Any] = {key: question[key] for key in ("answer", "value") if question.get(key)}
    if question.get("answerable") == 0:
        known["answerable"] = False
    return {"id": question["id"], "question": text, **known, "group": question["cluster"], "split": "held-out"}


def _why(left: Mapping[str, int]) -> str:
    return f" ({'; '.join(f'{count:,}: {reason}' for reason, count in left.items())})" if left else ""
