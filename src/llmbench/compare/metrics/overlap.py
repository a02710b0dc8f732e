"""How much an answer's words and characters overlap with those of a right answer: ROUGE, BLEU, chrF, edit distance.

Written out here, since intervals need the addends of a corpus's score, which the packages keep to themselves; the tests hold
them against sacrebleu and rouge-score. Of longer texts the first 100,000 characters count.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llmbench.compare.answers import Answer
from llmbench.compare.metrics.values import Pair, Tools, Totals, each, expected
from llmbench.questions import Question
from llmbench.recipe.metric_settings import ReferenceMetric, RougeMetric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["bleu", "chrf", "distance", "edit_similarity", "rouge"]

_LONGEST = 100_000
_ORDERS = 4
_CHARACTERS, _BETA = 6, 2.0
_WORD = re.compile(r"[a-z0-9]+")
_SPACED = (
    (re.compile(r"([\{-\~\[-\` -\&\(-\+\:-\@\/])"), r" \1 "),
    (re.compile(r"([^0-9])([\.,])"), r"\1 \2 "),
    (re.compile(r"([\.,])([^0-9])"), r" \1 \2"),
    (re.compile(r"([0-9])(-)"), r"\1 \2 "),
)
"""What mteval-v13a puts spaces around: punctuation; period and comma but inside numbers; a dash behind a digit."""
_ENTITIES = (("<skipped>", ""), ("-\n", ""), ("\n", " "), ("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))


@each
def rouge(question: Question, answer: Answer, spec: RougeMetric) -> float | None:
    """ROUGE's F1 (Lin 2004), the best of the right answers: of single words (rouge1), pairs (rouge2), or of the longest common
    subsequence (rougeL, the default). Words are runs of a-z and 0-9 in lower case, without stemming, as the package rouge-score
    has it (`use_stemmer=False`); so it measures nothing in other scripts."""
    right = _texts(question, spec)
    if not right:
        return None
    said = _WORD.findall(answer.text[:_LONGEST].lower())
    return max(_rouge(said, _WORD.findall(one.lower()), spec.type) for one in right)


def bleu(pairs: Sequence[Pair], spec: ReferenceMetric, tools: Tools) -> Totals:
    """BLEU (Papineni 2002) of all answers together, 0 to 1, as sacrebleu computes it: `case:mixed|eff:no|tok:13a|smooth:exp`,
    with as many references as there are right answers. It is no mean over questions; its interval is a bootstrap's."""
    import numpy as np

    rows = [_bleu_row(answer.text[:_LONGEST], _texts(question, spec)) for question, answer in pairs]

    def value(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        said, right, hits, totals = sums[..., 0], sums[..., 1], sums[..., 2:6], sums[..., 6:]
        brief = np.where(said < right, np.exp(1 - right / np.maximum(said, 1)), 1.0)
        # Orders without a hit count as if they had a half, a quarter, ... of one.
        missed = (hits == 0) & (totals > 0)
        counted = np.where(missed, 0.5 ** np.cumsum(missed, axis=-1), hits)
        sound = np.asarray((totals > 0).all(axis=-1) & (hits > 0).any(axis=-1))
        precision = np.where(sound[..., None], counted / np.maximum(totals, 1), 1.0)
        return np.where(sound & (said > 0), brief * np.exp(np.log(precision).mean(axis=-1)), 0.0)

    return Totals(np.array(rows, dtype=np.float64).reshape(len(pairs), 10), value)


def chrf(pairs: Sequence[Pair], spec: ReferenceMetric, tools: Tools) -> Totals:
    """chrF2 (Popovic 2015) of all answers together, 0 to 1, as sacrebleu computes it:
    `case:mixed|eff:yes|nc:6|nw:0|space:no`; of several right answers the closest one counts. It fits all scripts. It is no
    mean over questions; its interval is a bootstrap's."""
    import numpy as np

    rows = []
    for question, answer in pairs:
        said = _characters(answer.text[:_LONGEST])
        candidates = np.array([_chrf_row(said, _characters(one)) for one in _texts(question, spec)], dtype=np.float64)
        rows.append(candidates[int(np.argmax(_chrf(candidates)))])
    return Totals(np.array(rows, dtype=np.float64).reshape(len(pairs), 3 * _CHARACTERS), _chrf)


@each
def edit_similarity(question: Question, answer: Answer, spec: ReferenceMetric) -> float | None:
    """1 minus the edits (inserted, deleted and replaced characters; Levenshtein 1966) that make a right answer of this one,
    over the length of the longer of the two; the best of the right answers. Spaces around the whole do not count."""
    right = [one.strip() for one in _texts(question, spec)]
    if not right:
        return None
    said = answer.text.strip()[:_LONGEST]
    return max(1 - distance(said, one) / max(1, len(said), len(one)) for one in right)


def distance(a: str, b: str) -> int:
    """Levenshtein's distance, by bits: Hyyro (2003) after Myers (1999), with one integer for a whole column."""
    if len(a) > len(b):
        a, b = b, a
    if not a:
        return len(b)
    masks: dict[str, int] = {}
    for i, character in enumerate(a):
        masks[character] = masks.get(character, 0) | 1 << i
    full, last, score = (1 << len(a)) - 1, 1 << (len(a) - 1), len(a)
    up, down = full, 0
    for character in b:
        equal = masks.get(character, 0)
        vertical, across = equal | down, (((equal & up) + up) ^ up) | equal
        rise, fall = (down | ~(across | up)) & full, up & across
        score += bool(rise & last) - bool(fall & last)
        rise, fall = (rise << 1 | 1) & full, (fall << 1) & full
        up, down = (fall | ~(vertical | rise)) & full, rise & vertical
    return score


def _texts(question: Question, spec: ReferenceMetric) -> list[str]:
    return [str(one)[:_LONGEST] for one in expected(question, spec.expected)]


def _rouge(said: Sequence[str], right: Sequence[str], kind: str) -> float:
    if kind == "rougeL":
        shared, a, b = _common(said, right), len(said), len(right)
    else:
        n = int(kind[-1])
        one, other = _runs(said, n), _runs(right, n)
        shared, a, b = sum((one & other).values()), sum(one.values()), sum(other.values())
    return 2 * shared / (a + b) if shared else 0.0


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence, by bits (Crochemore 2001)."""
    masks: dict[str, int] = {}
    for i, word in enumerate(b):
        masks[word] = masks.get(word, 0) | 1 << i
    full = (1 << len(b)) - 1
    left = full
    for word in a:
        here = left & masks.get(word, 0)
        left = ((left + here) | (left - here)) & full
    return len(b) - left.bit_count()


def _runs(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def _bleu_row(text: str, right: Sequence[str]) -> list[int]:
    """Lengths said and right (of the closest reference), hits and totals of each order."""
    said, references = _tokens(text), [_tokens(one) for one in right]
    closest = min((len(one) for one in references), key=lambda length: (abs(length - len(said)), length))
    hits, totals = [], []
    for n in range(1, _ORDERS + 1):
        most: Counter[tuple[str, ...]] = Counter()
        for one in references:
            most |= _runs(one, n)
        runs = _runs(said, n)
        hits.append(sum((runs & most).values()))
        totals.append(sum(runs.values()))
    return [len(said), closest, *hits, *totals]


def _tokens(text: str) -> list[str]:
    """mteval-v13a's tokens."""
    text = text.rstrip()
    for entity, character in _ENTITIES:
        text = text.replace(entity, character)
    text = f" {text} "
    for pattern, spaced in _SPACED:
        text = pattern.sub(spaced, text)
    return text.split()


def _characters(text: str) -> list[Counter[str]]:
    """The runs of one to six characters, spaces left out."""
    bare = "".join(text.split())
    return [Counter(bare[i : i + n] for i in range(len(bare) - n + 1)) for n in range(1, _CHARACTERS + 1)]


def _chrf_row(said: Sequence[Counter[str]], right: Sequence[Counter[str]]) -> list[int]:
    """Runs said, runs right and runs shared, of each order; where the right one has none, none are said."""
    row = []
    for one, other in zip(said, right, strict=True):
        row += [one.total() if other else 0, other.total(), (one & other).total()]
    return row


def _chrf(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    said, right, shared = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    effective = (said > 0) & (right > 0)
    orders = np.maximum(1, effective.sum(axis=-1))
    precision = np.where(effective, shared / np.maximum(said, 1), 0).sum(axis=-1) / orders
    recall = np.where(effective, shared / np.maximum(right, 1), 0).sum(axis=-1) / orders
    weighed = _BETA**2 * precision + recall
    return np.asarray(np.where(weighed > 0, (1 + _BETA**2) * precision * recall / np.where(weighed > 0, weighed, 1), 0.0))
