"""Bounds that hold at every moment at once, so that whoever looks after each observation errs no more often than alpha.

One martingale carries all: the likelihood of k of n under a Beta(1/2, 1/2) mixture of shares, divided by that under a share p.
It starts at 1 and is fair if p is true, so that it ever reaches 1/alpha with a chance of at most alpha (Ville 1939; the mixture
is Robbins 1970). The shares that it has not ruled out are a confidence sequence for p. The number of values up to a quantile q
is k of n with the share q, so that the order statistics that it allows are one for the quantile, whatever the distribution (as
in Howard and Ramdas 2022, with this martingale in place of theirs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, log
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["Bounds", "compare", "quantile_bounds", "share_bounds"]

_PRIOR = 0.5
"""Jeffreys' prior: no share needs a variance to be estimated, and shares near 0 and 1, such as errors, are followed closely."""
_STEPS = 60
"""Bisections: 2^-60 of the width."""


@dataclass(frozen=True)
class Bounds:
    """What is not ruled out yet: from `low` to `high`, at every moment with a chance of at least 1 - alpha."""

    low: float
    high: float

    def narrowed(self, other: Bounds) -> Bounds:
        """Both at once: what was ruled out stays ruled out. Where nothing is left the newer ones hold."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high) if low <= high else other


def share_bounds(k: int, n: int, alpha: float) -> Bounds:
    """For a share, after k of n.

    Args:
        k: how many times it happened, 0 to n.
        n: observations, independent of each other; 0 gives [0, 1].
        alpha: the chance that a bound is ever wrong, both sides together.
    """
    if not 0 <= k <= n:
        raise ValueError(f"{k} of {n} is not a share")
    if n == 0:
        return Bounds(0.0, 1.0)
    limit = -log(alpha)
    middle = k / n
    low = _edge(lambda p: bool(_evidence(k, n, p) >= limit), 0.0, middle) if k > 0 else 0.0
    high = 1 - _edge(lambda p: bool(_evidence(n - k, n, p) >= limit), 0.0, 1 - middle) if k < n else 1.0
    return Bounds(low, high)


def quantile_bounds(values: NDArray[np.float64], q: float, alpha: float) -> Bounds:
    """For the q-quantile of what the values are drawn from, whatever that is.

    Args:
        values: sorted, (n,); none gives everything.
        q: 0 to 1, such as .95.
        alpha: the chance that a bound is ever wrong, both sides together.
    """
    n = len(values)
    if n == 0:
        return Bounds(-inf, inf)
    allowed = np.flatnonzero(_evidence(np.arange(n + 1), n, q) < -log(alpha))
    least, most = int(allowed[0]), int(allowed[-1])
    return Bounds(float(values[least - 1]) if least > 0 else -inf, float(values[most]) if most < n else inf)


def compare(new: Bounds, control: Bounds, margin: float, *, worse: Literal["higher", "lower"] = "higher") -> Literal[
    "worse", "not worse", "undecided"
]:  # fmt: skip
    """Whether the new one is worse than the control by more than a margin.

    Each side's bounds hold with 1 - alpha / 2, so that a verdict is ever wrong with a chance of at most alpha.

    Args:
        new: of what is tried.
        control: of what it is compared with.
        margin: how much worse is still no worse; in the units of the bounds.
        worse: which direction is bad.
    """
    if worse == "lower":
        new, control = Bounds(-new.high, -new.low), Bounds(-control.high, -control.low)
    if new.low - control.high > margin:
        return "worse"
    return "not worse" if new.high - control.low <= margin else "undecided"


def _evidence(k: int | NDArray[np.int_], n: int, p: float) -> NDArray[np.float64]:
    """The logarithm of the martingale against the share p, after k of n."""
    mixed = special.betaln(_PRIOR + k, _PRIOR + n - k) - special.betaln(_PRIOR, _PRIOR)
    found: NDArray[np.float64] = mixed - special.xlogy(k, p) - special.xlog1py(n - k, -p)
    return found


def _edge(ruled_out: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where what is ruled out ends, on its outer side, so that rounding makes bounds wider and never narrower."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if ruled_out(middle):
            outside = middle
        else:
            inside = middle
    return outside
