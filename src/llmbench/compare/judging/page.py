"""The judges in the report, and as rows of tables in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbench.compare.result import Comparison
from llmbench.page import section, table, text

__all__ = ["calibration_rows", "controlled_rows", "habit_rows", "judges_section"]

_HABITS = {
    "orders": "Both orders agree", "first": "Chose the first shown", "longer": "Chose the longer", "ties": "Ties",
    "unreadable": "Not readable", "in_form": "Probability of a letter",
}  # fmt: skip

_HOW = {
    "pairwise": "of two answers the better one, in both orders, where they disagree a tie",
    "rubric": "a rating from 1 to 5",
    "checklist": "yes or no to each item of a list",
}

_SAY = {"first": "prefer the variant listed first", "second": "prefer the one listed later", "tie": "see a tie"}


def habit_rows(c: Comparison) -> list[list[str]]:
    """What each judge does, a row a judge; empty without one that could be read."""
    habits = (c.judges or {}).get("habits") or {}
    names = [name for name in _HABITS if any(habit.get(name) for habit in habits.values())]
    if not names:
        return []
    rows = [[judge, *(_share(habit.get(name)) for name in names)] for judge, habit in habits.items()]
    return [["Judge", *(_HABITS[name] for name in names)], *rows]


def controlled_rows(c: Comparison) -> list[list[str]]:
    """How often each variant wins against each other one, and how often at equal length; empty where no pairs were judged."""
    pairs = (c.judges or {}).get("controlled") or []
    rows = [[f"{one['b']} over {one['a']}", _turned(one["wins"]), _turned(one["controlled"])] for one in pairs]
    return [["Wins, ties half", "As judged", "At equal length"], *rows] if rows else []


def calibration_rows(c: Comparison) -> list[list[str]]:
    """What labels and judgements say together, beside labels alone; empty without labels."""
    told = (c.judges or {}).get("calibration")
    if not told:
        return []
    rows = []
    for name, one in told["intervals"].items():
        both = f"{100 * one['value']:.1f} [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"
        alone = f"{100 * one['people']:.1f} [{100 * one['people_low']:.1f}, {100 * one['people_high']:.1f}]"
        rows.append([name, both, alone, f"{one['n']:,}", f"{one['weight']:.2f}", f"{one['worth']:.2f}"])
    return [["Points", "Labels and judge", "Labels alone", "Labels", "Weight of the judge", "Worth"], *rows]


def judges_section(c: Comparison) -> str:
    """The section of the report; empty without a judge. All that models wrote is escaped."""
    told = c.judges
    if told is None:
        return ""
    blocks = ""
    for rows in (calibration_rows(c), _class_rows(told), habit_rows(c), controlled_rows(c), _weight_rows(told)):
        if rows:
            blocks += table([text(head) for head in rows[0]], [[text(cell) for cell in row] for row in rows[1:]])
    checked = told["calibration"]
    notes = checked["notes"] if checked else ["These are the judge's opinions, unchecked: no labels of people are known."]
    items = "".join(f'<li dir="auto">{text(note)}</li>' for note in [*notes, *told["notes"]])
    who = ", ".join(one["name"] for one in told["judges"])
    tokens = told["prompt_tokens"] + told["completion_tokens"]
    lead = (
        f"{text(who)} judged: {_HOW[told['kind']]}. {told['judgements']:,} judgements, {tokens:,} tokens, prompt "
        f"{text(told['prompt']['sha256'])}. Every figure has its interval."
    )
    return section("Judges", f'{blocks}<ul class="says">{items}</ul>', lead=lead, place="judges")


def _class_rows(told: Mapping[str, Any]) -> list[list[str]]:
    checked = told["calibration"]
    if not checked:
        return []
    kinds = sorted({kind for of in checked["of"].values() for kind in of.get("classes", {})})
    rows = [
        [name, _kappa(of.get("kappa")), _kappa(of.get("alpha")), *(_share(of.get("classes", {}).get(kind)) for kind in kinds)]
        for name, of in checked["of"].items()
    ]
    return [
        [
            "Against people",
            "Cohen's kappa",
            "Krippendorff's alpha",
            *(f"Right where people {_SAY.get(x, f'say {x}')}" for x in kinds),
        ],
        *rows,
    ]


def _weight_rows(told: Mapping[str, Any]) -> list[list[str]]:
    weighed = told.get("weighed")
    if not weighed:
        return []
    kinds = list(weighed["prevalence"])
    rows = [[judge, *(f"{100 * of[kind][kind]:.0f}%" for kind in kinds)] for judge, of in weighed["tables"].items()]
    return [["Dawid and Skene", *(f"Right where it is {kind}" for kind in kinds)], *rows]


def _share(of: Mapping[str, Any] | None) -> str:
    return "-" if not of else f"{100 * of['mean']:.0f}% [{100 * of['low']:.0f}, {100 * of['high']:.0f}]"


def _turned(of: Mapping[str, Any] | None) -> str:
    """The other one's share."""
    return _share(of and {"mean": 1 - of["mean"], "low": 1 - of["high"], "high": 1 - of["low"]})


def _kappa(of: Mapping[str, Any] | None) -> str:
    if not of or of["value"] is None:
        return "-"
    return f"{of['value']:.2f}" + ("" if of["low"] is None else f" [{of['low']:.2f}, {of['high']:.2f}]")
