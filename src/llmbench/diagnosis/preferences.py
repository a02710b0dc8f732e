"""Methods that judge answers: whether pairs are told apart, how far the model drifts, and whether rewards say anything."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean, median

from llmbench.diagnosis.finding import Finding
from llmbench.diagnosis.recorded import Traces

__all__ = ["KINDS", "found", "unseen"]

KINDS = {
    "accuracy at chance": "After training, the better answer is preferred no more often than the worse one.",
    "chosen answers become unlikely": "The log-probability of the better answers fell with that of the worse ones.",
    "rewards all alike": "The answers to a prompt get the same reward in most steps, so that there is nothing to learn from.",
    "drift from the reference": "The divergence from the model at the start grew far beyond what is usual.",
}
_FEWEST = 10
_CHANCE = 0.58
"""Share of pairs, mean of the last third: of 60 pairs that are told apart by luck 1 in 10 reaches it."""
_FELL = 20.0
"""Nats of a whole answer: likelihood displacement (Razin et al. 2024, arXiv 2410.08847) is seen from a fall of tens on."""
_WITH_SFT = ", or add the likelihood of the better answers to the loss (dpo.loss_type with sft)"
_ALIKE, _KL = 0.8, 10.0


def found(of: Traces) -> Iterator[Finding]:
    """Findings about judged answers."""
    method = of.recipe["method"]
    if method in ("dpo", "orpo", "reward"):
        yield from _chance(of, method)
    yield from _displaced(of, method)
    yield from _alike(of)
    kl = [value for _, value in of.series("kl")]
    if len(kl) >= _FEWEST and median(kl[-max(3, len(kl) // 5) :]) > _KL:
        yield Finding(
            "drift from the reference", "warning",
            f"The divergence from the reference model is {median(kl[-max(3, len(kl) // 5) :]):.3g} nats at the end.",
            "Raise beta, or lower the rate.", (f"training.learning_rate={float(of.training['learning_rate']) / 3:.2g}",),
            figures={"kl": kl[-1]},
        )  # fmt: skip


def unseen(of: Traces) -> Iterator[str]:
    """What the records do not tell."""
    if of.recipe["method"] in ("dpo", "orpo", "reward") and len(of.logged) < _FEWEST:
        yield f"whether pairs are told apart: {len(of.logged)} logged steps, and {_FEWEST} are needed"


def _chance(of: Traces, method: str) -> Iterator[Finding]:
    values = [value for _, value in of.series("rewards/accuracies") or of.series("accuracy")]
    if len(values) < _FEWEST:
        return
    last = mean(values[-len(values) // 3 :])
    if last < _CHANCE and of.finished:
        yield Finding(
            "accuracy at chance", "warning",
            f"In the last third of the steps {last:.0%} of the pairs are ranked as they are marked; chance is 50 %.",
            "Look for pairs that are marked the wrong way round or hardly differ (llmbench check RECIPE), and raise the rate.",
            (f"training.learning_rate={5 * float(of.training['learning_rate']):.2g}",), 
            figures={"accuracy": last, "method": method},
        )  # fmt: skip


def _displaced(of: Traces, method: str) -> Iterator[Finding]:
    """KTO's divergence does not show it: it is 0 where answers that belong to other prompts became unlikely as well."""
    chosen = [value for _, value in of.series("logps/chosen")]
    if len(chosen) < _FEWEST:
        return
    part = max(3, len(chosen) // 5)
    fell = median(chosen[:part]) - median(chosen[-part:])
    if fell > max(_FELL, 0.5 * abs(median(chosen[:part]))):
        yield Finding(
            "chosen answers become unlikely", "warning",
            f"The log-probability of the better answers fell by {fell:.3g} nats, to {median(chosen[-part:]):.4g}: what "
            "takes their "
            "place may be neither of the two.",
            f"Lower the rate, or raise {method}.beta{_WITH_SFT if method == 'dpo' else ''}.",
            (f"training.learning_rate={float(of.training['learning_rate']) / 3:.2g}",), figures={"fell": fell},
        )  # fmt: skip


def _alike(of: Traces) -> Iterator[Finding]:
    shares = [value for _, value in of.series("frac_reward_zero_std")]
    if len(shares) >= _FEWEST and mean(shares) > _ALIKE:
        yield Finding(
            "rewards all alike", "error" if mean(shares) > 0.99 else "warning",
            f"For {mean(shares):.0%} of the prompts all answers were rewarded alike, over {len(shares)} logged steps: "
            "these give no gradient.",
            "Make prompts easier or harder, sample with a higher temperature, or reward parts of an answer.",
            figures={"share": mean(shares)},
        )  # fmt: skip
