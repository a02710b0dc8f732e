"""The best evaluation, and when to stop, follow from the evaluations alone."""

from __future__ import annotations

import pytest

from llmbench.recipe import TrainingSpec
from llmbench.runs.best import Goal, goal

LOG = [{"step": 0, "eval_loss": 0.1}, {"step": 1, "loss": 3.0}] + [
    {"step": 10 * (i + 1), "eval_loss": value} for i, value in enumerate([3.0, 2.0, 2.5, 1.9, 1.95, 1.9, 2.2])
]


def test_the_best_is_the_first_of_equals_and_the_base_does_not_count() -> None:
    assert Goal("eval_loss", greater_is_better=False).best(LOG) == (40, 1.9)
    assert Goal("eval_loss", greater_is_better=True).best(LOG) == (10, 3.0)
    assert Goal("eval_exact_match", greater_is_better=True).best(LOG) is None


@pytest.mark.parametrize(
    ("patience", "threshold", "evaluations"),
    [(1, 0.0, 3), (2, 0.0, 6), (3, 0.0, 7), (4, 0.0, None), (1, 0.5, 3), (2, 0.5, 4), (1, 5.0, 2)],
)
def test_patience_is_counted_from_the_last_gain(patience: int, threshold: float, evaluations: int | None) -> None:
    """Gains on the best before them: 1.0, -0.5, 0.1, -0.05, 0.0, -0.3."""
    judged = Goal("eval_loss", greater_is_better=False, patience=patience, threshold=threshold)
    stops = next((n for n in range(1, 8) if judged.exhausted(LOG[: 2 + n])), None)
    assert stops == evaluations


def test_no_patience_never_stops() -> None:
    assert not Goal("eval_loss", greater_is_better=False).exhausted(LOG * 9)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"load_best_model_at_end": True}, Goal("eval_loss", greater_is_better=False)),
        ({"metric_for_best_model": "perplexity"}, Goal("eval_perplexity", greater_is_better=False)),
        ({"metric_for_best_model": "eval_exact_match"}, Goal("eval_exact_match", greater_is_better=True)),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, Goal("eval_loss", greater_is_better=True)),
        ({"early_stopping_patience": 2, "early_stopping_threshold": 0.1}, Goal("eval_loss", False, 2, 0.1)),
    ],
)
def test_a_recipe_says_what_it_is_judged_by(fields: dict[str, object], expected: Goal | None) -> None:
    assert goal(TrainingSpec.model_validate(fields)) == expected
