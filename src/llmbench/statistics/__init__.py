"""How sure one may be: intervals, paired tests, and what so many questions can show; one room for all that measure something.

The values stand here, without numpy, so that what is finished can be read where numpy is not installed; the figures are
made in `paired`, `intervals`, `flips`, `clusters`, `power` and, for what is looked at while it comes, `sequential`.
"""

from llmbench.statistics.values import Difference, Estimate, FactorEffect, Kind, Noise, p_value

__all__ = [
    "Difference", "Estimate", "FactorEffect", "Kind", "Noise", "agreement", "clusters", "dawid_skene", "effects", "intervals",
    "logit", "p_value", "paired", "power", "ppi", "rating", "ratings", "resampling", "sequential", "words",
]  # fmt: skip
