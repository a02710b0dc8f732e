"""Whether the winner is better than the recipe as it stands, corrected for how often that was looked for.

The figure that a winner was chosen by is too good, since the greatest of many is chosen for its luck too. Two remedies, both
exact in that no difference is claimed where there is none in more than alpha of all sweeps:

- rows that no trial saw, on which one comparison is made, whose choice does not depend on them (Cox, Biometrika 62, 1975: a
  note on data-dependent selection of hypotheses). Where a continued sweep finds another winner, they have been looked at once
  more, and p is multiplied by the number of looks;
- on the trials' own questions, p is multiplied by the number of trials that could have won (Bonferroni; Dunn, JASA 56, 1961).
  It holds however the trials depend on each other, as they do where a sampler learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmbench.runs import Run
from llmbench.statistics import Difference, Kind

if TYPE_CHECKING:
    from llmbench.statistics.paired import Groups, Values

__all__ = ["Claim", "answers", "averaged", "judge"]


@dataclass(frozen=True)
class Claim:
    """What is said of the winner against the recipe as it stands.

    `seen` is `held out` (rows or questions that no trial saw) or `searched` (the trials' own). `looks` is what p was multiplied
    by, `seeds` how many trainings of each there were. `difference` is the winner minus the recipe, None where it could not be
    estimated; `better` whether it is shown.
    """

    winner: int
    metric: str
    seen: Literal["held out", "searched"]
    looks: int
    seeds: int
    winner_mean: float
    own_mean: float
    difference: Difference | None
    better: bool
    confidence: float

    def sentence(self) -> str:
        """The claim in words."""
        where = "what no trial saw" if self.seen == "held out" else "the questions that the trials were chosen by"
        what = f"trial {self.winner}: {self.metric} {self.winner_mean:.4g}, the recipe as it stands: {self.own_mean:.4g}"
        one = self.difference
        if one is None:
            return f"Not shown on {where} ({what}): one value each says nothing of chance. Raise confirm.seeds."
        interval = f"difference {one.mean:+.4g}, {100 * self.confidence:g} % interval {one.low:+.4g} to {one.high:+.4g}"
        p = f"p = {one.p_holm:.3g}" if one.p_holm >= 0.001 else "p < 0.001"
        looks = f", corrected for {self.looks} looks" if self.looks > 1 else ""
        said = "Better" if self.better else "Not shown to be better"
        times = f", {self.seeds} seeds each" if self.seeds > 1 else ""
        text = f"{said} on {where} ({what}; {interval}, {p}{looks}, n = {one.n:,}{times})."
        if self.better or one.detectable is None:
            return text
        return f"{text} A true difference of {one.detectable:.3g} would be found in four of five such comparisons."

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"sentence": self.sentence()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> Claim:
        """The inverse of `to_json`."""
        found = {key: value for key, value in values.items() if key != "sentence"}
        return Claim(**found | {"difference": Difference(**found["difference"]) if found["difference"] else None})


def judge(
    winner: Values,
    own: Values,
    kind: Kind,
    *,
    metric: str,
    number: int,
    seen: Literal["held out", "searched"],
    looks: int,
    seeds: int,
    minimizes: bool,
    confidence: float = 0.95,
    groups: Groups = None,
) -> Claim | None:
    """Compares the winner with the recipe as it stands; None where they share no value.

    Args:
        winner: question, or seed -> value.
        own: the same of the recipe as it stands.
        kind: what one of them gives.
        metric: its name.
        number: the winner's.
        seen: what was asked.
        looks: how many comparisons this one was chosen from, or how often these rows were looked at, this time included.
        seeds: trainings of each.
        minimizes: whether less is better.
        confidence: 1 - alpha.
        groups: the clusters of the questions.
    """
    from llmbench.statistics.paired import differences  # numpy and scipy, which a listing does without

    ids = winner.keys() & own.keys()
    if not ids:
        return None
    found = differences(
        metric,
        {"own": own, "winner": winner},
        kind,
        confidence=confidence,
        groups=groups,
        tests=max(1, looks),
    )
    one = found[0] if found else None
    better = one is not None and one.p_holm < 1 - confidence and (one.mean < 0 if minimizes else one.mean > 0)
    of_winner, of_own = (sum(of[id] for id in ids) / len(ids) for of in (winner, own))
    return Claim(number, metric, seen, looks, seeds, of_winner, of_own, one, better, confidence)


def answers(run: Run, metric: str) -> tuple[dict[str, float], dict[str, str]]:
    """The score of each question at the step that the run keeps (question -> score), and where each question stands.

    Questions are told apart by what the model was given; equal ones by their order. Both are empty for a run that was removed.
    """
    if not run.exists:
        return {}, {}
    rows = run.samples()
    kept = run.status.get("kept_step")
    step = kept if kept is not None else max((row["step"] for row in rows), default=None)
    scores: dict[str, float] = {}
    places: dict[str, str] = {}
    times: dict[str, int] = {}
    for row in rows:
        value = row["scores"].get(metric.removeprefix("eval_"))
        if row["step"] != step or value is None:
            continue
        times[row["prompt"]] = number = times.get(row["prompt"], 0) + 1
        key = f"{number} {row['prompt']}"
        scores[key], places[key] = float(value), str(row["place"])
    return scores, places


def averaged(each: Sequence[Values]) -> dict[str, float]:
    """The mean over several trainings, of the questions that all of them have."""
    if not each:
        return {}
    shared = set.intersection(*(set(values) for values in each))
    return {key: sum(values[key] for values in each) / len(each) for key in sorted(shared)}
