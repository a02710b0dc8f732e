"""Multiple choice, by letter and by probability."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Mapping
from typing import Any

from llmbench import scoring
from llmbench.compare.answers import Answer
from llmbench.compare.metrics.values import each, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import ChoiceMetric

__all__ = ["choice", "choice_probability", "fault", "has_options"]

_LETTERS = string.ascii_uppercase
_ALONE = re.compile(r"\W*([A-Za-z])\W*")
_SAID = re.compile(r"(?i:answer|choice|option)\W{0,3}(?i:is|would be)?\W{0,6}([A-Z])(?![\w'\u2019])")
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\text\s*\{)?\s*\(?([A-Z])\b")
_FIRST = re.compile(r"\W*([A-Z])(?:[).:\]]|\*\*|\s*$|\s*\n)")


@each
def choice(question: Question, answer: Answer, spec: ChoiceMetric) -> float | None:
    """The option that the answer chooses is a right one.

    Chosen is a letter that stands alone, behind "answer is" or in `\\boxed{}`, or that begins the answer ("B) ..."); else the
    option that the answer begins with, or the only one whose text it holds. An answer that chooses none, or several, is wrong.
    The right one may be given as a letter, as the option's text, or as its number from 0.
    """
    options = _options(question, spec)
    right = _right(question, spec, options)
    if not right:
        return None
    return float(_chosen(answer.text, options) in right)


@each
def choice_probability(question: Question, answer: Answer, spec: ChoiceMetric) -> float | None:
    """The probability of the right letters as the answer's first token, over that of all options' letters together.

    Endpoints that give no log-probabilities are not measured; a letter that is not among the most probable tokens counts 0.
    """
    options = _options(question, spec)
    right = _right(question, spec, options)
    if not right or not answer.openings:
        return None
    chances = dict.fromkeys(options or right, 0.0)
    for token, logprob in answer.openings.items():
        if (letter := token.strip().strip("(").upper()) in chances:
            chances[letter] += math.exp(min(0.0, logprob))
    total = sum(chances.values())
    return sum(chances[letter] for letter in right if letter in chances) / total if total else 0.0


def has_options(question: Question, spec: ChoiceMetric) -> bool:
    """Whether a right option is known."""
    return bool(expected(question, spec.expected))


def fault(question: Question, spec: ChoiceMetric) -> str | None:
    """What is wrong with a question's options, or with the right one."""
    given = question.columns.get(spec.options)
    if given is not None and not isinstance(given, list | dict):
        return f"{spec.options} must be a list of options, or letters with their options"
    if isinstance(given, list) and len(given) > len(_LETTERS):
        return f"{spec.options} has {len(given)} options; there are letters for {len(_LETTERS)}"
    options = _options(question, spec)
    for one in expected(question, spec.expected):
        if _letter(one, options) is None:
            known = f"one of {', '.join(options)} or its text" if options else "a letter"
            return f"the right answer {str(one)[:40]!r} is not {known}"
    return None


def _options(question: Question, spec: ChoiceMetric) -> Mapping[str, str]:
    """Letter -> text; empty where the row lists none."""
    given = question.columns.get(spec.options)
    if isinstance(given, dict):
        return {str(key).strip().upper(): str(value) for key, value in given.items()}
    if isinstance(given, list):
        return dict(zip(_LETTERS, map(str, given), strict=False))
    return {}


def _right(question: Question, spec: ChoiceMetric, options: Mapping[str, str]) -> set[str]:
    found = (_letter(one, options) for one in expected(question, spec.expected))
    return {one for one in found if one is not None}


def _letter(value: Any, options: Mapping[str, str]) -> str | None:
    """The letter of a right answer that is given as a letter, a text or a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        letters = list(options) or list(_LETTERS)
        return letters[value] if 0 <= value < len(letters) else None
    text = str(value).strip()
    same = [letter for letter, option in options.items() if scoring.same_sentence(option, text)]
    if same:
        return same[0]
    letter = text.strip("().").upper()
    return letter if letter in options or (not options and len(letter) == 1 and letter in _LETTERS) else None


def _chosen(text: str, options: Mapping[str, str]) -> str | None:
    text = text.strip()[-20_000:]
    known = set(options) or set(_LETTERS)
    if (alone := _ALONE.fullmatch(text)) and alone[1].upper() in known:
        return alone[1].upper()
    for pattern in (_BOXED, _SAID):
        if said := [letter for letter in pattern.findall(text) if letter in known]:
            return str(said[-1])
    if (first := _FIRST.match(text)) and first[1] in known:
        return first[1]
    return _by_text(scoring.plain(text), options)


def _by_text(text: str, options: Mapping[str, str]) -> str | None:
    """The option that a text begins with (the longest), or the only one that it holds as words of its own."""
    wordings = {letter: scoring.plain(option).rstrip(" .!?") for letter, option in options.items()}
    wordings = {letter: words for letter, words in wordings.items() if words}
    begins = [letter for letter, words in wordings.items() if re.match(re.escape(words) + r"(?!\w)", text)]
    if begins:
        return max(begins, key=lambda letter: len(wordings[letter]))
    held = [letter for letter, words in wordings.items() if re.search(rf"(?<!\w){re.escape(words)}(?!\w)", text)]
    inner = {a for a in held for b in held if a != b and wordings[a] in wordings[b]}
    held = [letter for letter in held if letter not in inner]
    return held[0] if len(held) == 1 else None
