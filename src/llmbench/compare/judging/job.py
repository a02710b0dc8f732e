"""Lets judges judge a comparison's answers, and tells what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from llmbench.compare.answers import AnswerLog
from llmbench.compare.ask import Progress
from llmbench.compare.asking import wait_for
from llmbench.compare.judging import asking, prompts
from llmbench.compare.judging.judgements import FILE, JudgementLog, Ruling, counted
from llmbench.compare.judging.labels import kept
from llmbench.compare.judging.verdicts import JudgedAnswers, joined, per_judge, same_answers
from llmbench.compare.result import Comparison
from llmbench.errors import DataError
from llmbench.questions import Question
from llmbench.recipe import CompareRecipe

__all__ = ["again", "judge", "opined", "told"]

_UNCHECKED = "In the judge's opinion, unchecked, "
_PANEL = "In the judges' opinion, unchecked, "


def judge(
    recipe: CompareRecipe, asked: Sequence[Question], log: AnswerLog, folder: Path, progress: Progress | None = None
) -> JudgedAnswers:
    """Asks the recipe's judges what is not judged yet.

    Args:
        recipe: one with a `judge`.
        asked: the questions.
        log: their answers.
        folder: the comparison's, where judgements.jsonl is.
        progress: called at the start and after each judgement.

    Raises:
        EndpointError: nobody answers, a judge is not served, or ten requests in a row failed.
    """
    assert recipe.judge is not None
    repeats = [(question, name, i) for question in asked for name in recipe.names for i in range(recipe.repeats)]
    found = [(question, log.answer((question.id, name), i)) for question, name, i in repeats]
    pairs = [(question, answer) for question, answer in found if answer is not None and answer.error is None]
    cases = asking.wanted(recipe.judge, pairs, recipe.statistics.seed)
    there = JudgementLog(folder / FILE)
    seats, entries = wait_for(asking.fill(recipe, cases, there, progress))
    there.finish(seats)
    judgements = [one for seat in seats if (one := there.of(seat)) is not None]
    alike = same_answers([answer for _, answer in pairs], recipe.names) if recipe.judge.kind == "pairwise" else []
    return _joined(judgements, recipe.names, recipe.judge.kind == "pairwise", recipe.judge.combine, alike, entries)


def again(comparison: Comparison) -> JudgedAnswers:
    """The same of a finished comparison, from its files; nobody is asked."""
    assert comparison.judges is not None
    told = comparison.judges
    pairs = told["kind"] == "pairwise"
    alike = same_answers([row.answer for row in comparison.rows], comparison.variants) if pairs else []
    entries = {one["name"]: one["listing"] for one in told["judges"]}
    return _joined(counted(comparison.folder / FILE), comparison.variants, pairs, told["combine"], alike, entries)


def told(comparison: Comparison, judged: JudgedAnswers, recipe: CompareRecipe, before: Mapping[str, Any] | None) -> Comparison:
    """The comparison with all that is known about its judges, and a headline that says whose opinion it is.

    Args:
        comparison: as it was measured.
        judged: what judges made of it.
        recipe: its recipe.
        before: what an earlier time told of its judges.
    """
    from llmbench.compare import statistics

    spec = recipe.judge
    assert spec is not None
    groups = statistics.groups(comparison.questions, recipe.statistics)
    told: dict[str, Any] = {
        "metric": _name(recipe),
        "kind": spec.kind,
        "combine": spec.combine,
        "judges": [{"name": one.called, "listing": dict(judged.entries[one.called])} for one in spec.judges],
        "prompt": {"form": prompts.FORM, "sha256": prompts.version(spec)},
        "cluster": recipe.statistics.cluster,
        "failed": sum(one.error is not None for one in judged.judgements),
        **_figures(comparison, judged, groups),
        "calibration": None,
    }
    told["notes"] = _notes(told, before, judged)
    verdict = comparison.verdict
    if comparison.measure(comparison.headline).name == _name(recipe):
        verdict = (_PANEL if spec.panel else _UNCHECKED) + _lower(verdict)
    return _checked(opined(replace(comparison, judges=told, verdict=verdict), judged), judged)


def opined(comparison: Comparison, judged: JudgedAnswers) -> Comparison:
    """The comparison with what judges said of each question, for the report."""
    return replace(comparison, opinions=_opinions(judged))


def _checked(comparison: Comparison, judged: JudgedAnswers) -> Comparison:
    """With the labels that an earlier calibration kept, as far as they are of the answers as they are now."""
    assert comparison.judges is not None
    if not (labels := kept(comparison.folder)):
        return comparison
    from llmbench.compare.judging.calibration import calibrated

    try:
        return calibrated(comparison, judged, labels, comparison.judges["metric"])
    except DataError as error:
        note = f"People's labels are known, and no longer fit: {error}"
        return replace(comparison, judges=comparison.judges | {"notes": [*comparison.judges["notes"], note]})


def _name(recipe: CompareRecipe) -> str:
    return next(one.name for one in recipe.metrics if one.kind == "judge")


def _lower(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:] if sentence.startswith(("No difference", "It ")) else sentence


def _joined(
    judgements: Sequence[Ruling],
    variants: Sequence[str],
    pairs: bool,
    combine: str,
    alike: Sequence[Any],
    entries: Mapping[str, Mapping[str, Any]],
) -> JudgedAnswers:
    of = per_judge(judgements, variants)
    return JudgedAnswers(tuple(judgements), of, joined(of, pairs, combine, alike), entries)


def _figures(comparison: Comparison, judged: JudgedAnswers, groups: Mapping[str, str]) -> dict[str, Any]:
    from llmbench.compare.judging import figures

    sure = figures.Sure(comparison.confidence, groups)
    lengths = {row.answer.place: len(row.answer.text) for row in comparison.rows if row.answer.error is None}
    habits = {}
    for name, verdicts in judged.of.items():
        mine = [one for one in judged.judgements if one.judge == name and one.error is None]
        habits[name] = figures.habits(mine, verdicts, lengths, sure)
    whose = figures.own(judged.entries, comparison.listing)
    weighed = judged.together.weighed
    return {
        "judgements": len(judged.judgements),
        "verdicts": len(judged.together.values),
        "alike": len(judged.together.alike),
        "prompt_tokens": sum(one.prompt_tokens for one in judged.judgements),
        "completion_tokens": sum(one.completion_tokens for one in judged.judgements),
        "by_probability": sum(bool(one.probabilities) for one in judged.judgements),
        "habits": habits,
        "controlled": figures.controlled(judged.together, lengths, comparison.variants, sure),
        "own": whose,
        "kin": figures.kin(judged.of, whose, sure),
        "weighed": None
        if weighed is None
        else {
            **{name: value for name, value in asdict(weighed).items() if name != "chances"},
            "faults": list(weighed.faults),
        },
    }


def _notes(told: Mapping[str, Any], before: Mapping[str, Any] | None, judged: JudgedAnswers) -> list[str]:
    """Sentences that a reader has to know."""
    said = []
    earlier = (before or {}).get("prompt", {}).get("sha256")
    if earlier is not None and earlier != told["prompt"]["sha256"]:
        now = told["prompt"]["sha256"]
        said.append(f"The judge's prompt is another than last time ({earlier} became {now}); everything was judged again.")
    if told["failed"]:
        said.append(f"{told['failed']:,} judgements failed and are left out. The same command asks for them again.")
    unread = [one for one in judged.judgements if one.error is None and one.value is None]
    if unread:
        where = f"such as {unread[0].text[:80]!r}" if unread[0].text else "all empty"
        said.append(
            f"{len(unread):,} of {told['judgements']:,} judgements could not be read, {where}; they are left out. "
            "A reply that was cut needs a higher judge.max_tokens."
        )
    if told["alike"]:
        said.append(f"{told['alike']:,} pairs of answers are word for word the same: ties, without being judged.")
    for name, habit in told["habits"].items():
        said += _habit_notes(name, habit)
    said += [f"Dawid and Skene's model: {one}" for one in (told["weighed"] or {}).get("faults", ())]
    for one in told["kin"]:
        said.append(_kin_note(one))
    return said


def _habit_notes(name: str, habit: Mapping[str, Any]) -> list[str]:
    said = []
    first, longer, orders = habit.get("first"), habit.get("longer"), habit.get("orders")
    form = habit.get("in_form")
    if form is not None and form["mean"] < 0.5:
        said.append(
            f"{name} gives only {100 * form['mean']:.1f}% of its probability to the letters that it was asked for: it hardly "
            "understood what to do."
        )
    if orders is not None and orders["mean"] < 0.5:
        said.append(
            f"{name} contradicts itself in {100 * (1 - orders['mean']):.0f}% of pairs when the two answers change places."
        )
    if first is not None and not first["low"] <= 0.5 <= first["high"]:
        side = "first" if first["mean"] > 0.5 else "second"
        share = max(first["mean"], 1 - first["mean"])
        said.append(
            f"{name} prefers the answer shown {side}: {100 * share:.0f}% of its choices. Both orders are asked, so that this "
            "makes ties, not winners."
        )
    if longer is not None and not longer["low"] <= 0.5 <= longer["high"]:
        word = "longer" if longer["mean"] > 0.5 else "shorter"
        share = max(longer["mean"], 1 - longer["mean"])
        said.append(
            f"{name} chose the {word} answer in {100 * share:.0f}% of the pairs that it decided. Labels tell whether that is a "
            "bias; the win rate at equal length is given, too."
        )
    return said


def _kin_note(one: Mapping[str, Any]) -> str:
    whose = ", ".join(one["variants"])
    wins = one["wins"]
    if wins is None:
        return f"{one['judge']} is the model behind {whose}, so that it may prefer itself."
    figures = f"{100 * wins['mean']:.0f}% [{100 * wins['low']:.0f}, {100 * wins['high']:.0f}]"
    if one["more"] is None:
        return (
            f"{one['judge']} is the model behind {whose} and lets it win {figures} of its comparisons with others. Labels, or "
            "a judge of another model, would tell how much of it is self-preference."
        )
    more = one["more"]
    return (
        f"{one['judge']} is the model behind {whose} and lets it win {figures} of its comparisons with others: "
        f"{100 * more['mean']:+.1f} points [{100 * more['low']:+.1f}, {100 * more['high']:+.1f}] against what judges of other "
        "models say."
    )


def _opinions(judged: JudgedAnswers) -> dict[str, list[dict[str, Any]]]:
    """Question -> what judges said of it, for the report."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in judged.judgements:
        if one.error is None and not one.repeat:
            found.setdefault(one.id, []).append(
                {"judge": one.judge, "shown": list(one.shown), "label": one.label or "not readable", "reason": one.reason}
            )
    return found
