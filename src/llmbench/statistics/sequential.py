"""Bounds that hold at every moment at once, so that whoever looks after each observation errs no more often than alpha.

One martingale carries all: the likelihood of k of n under a Beta(1/2, 1/2) mixture of shares, divided by that under a share p.
It starts at 1 and is fair if p is true, so that it ever reaches 1/alpha with a chance of at most alpha (Ville 1939; the mixture
is Robbins 1970). The shares that it has not ruled out are a confidence sequence for p. The number of values up to a quantile q
is k of n with the share q, so that the order statistics that it allows are one for the quantile, whatever the distribution (as
in Howard and Ramdas 2022, with this martingale in place of theirs).

Two variants have a martingale each, and the product of both is one too. Its least value over all pairs that differ by d is the
evidence against d: what it has not ruled out is a confidence sequence for the difference. It decides sooner
than two sequences with half of alpha each whose bounds must lie apart.

The same holds for means of values between 0 and 1, whatever their distribution, with their sum in the place of k. Each factor
of the ratio is convex in the value and so at most what the line between its ends gives, whose mean is 1: the ratio can only
fall on average. Values that vary little are bounded no closer than shares are.

Two variants that answer the same questions are compared by their differences, of which most are 0. There the evidence is the
wealth of who bets on each difference, mixed over sizes of the bet (Waudby-Smith and Ramdas 2024): it grows with how little the
differences vary. The questions of a page are one bet, on their sum, so that they may depend on each other in any way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf, lgamma, log, log1p

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "Bounds",
    "PairedEvidence",
    "against_quantiles",
    "against_share",
    "against_shares",
    "difference_bounds",
    "paired_bounds",
    "quantile_bounds",
    "share_bounds",
]

_PRIOR = 0.5
"""Jeffreys' prior: no share needs a variance to be estimated, and shares near 0 and 1, such as errors, are followed closely."""
_STEPS = 60
"""Bisections: 2^-60 of the width."""
_BETS = 0.98 * 2.0 ** (-np.arange(24) / 2)
"""The bets, as parts of the largest that cannot be ruined: from nearly all of it down to a 3,000th."""
_EDGE = 1e-12
"""How near to 0 and 1 shares are looked for."""


@dataclass(frozen=True)
class Bounds:
    """What is not ruled out yet: from `low` to `high`, at every moment with a chance of at least 1 - alpha."""

    low: float
    high: float


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


def against_share(k: float, n: int, p: float) -> float:
    """The evidence against a share of p after k of n: the logarithm of the martingale, as `against_shares`."""
    return _mixed(k, n) - _likelihood(k, n, p)


def against_shares(new: tuple[float, int], control: tuple[float, int], difference: float, *, reach: float = -inf) -> float:
    """The evidence against two shares that differ by this much: the log of a martingale's least value over all such pairs.

    That it ever reaches -ln(alpha) has a chance of at most alpha, if the shares do differ by this much.

    Args:
        new: k of n, as (k, n); or the sum and the number of values between 0 and 1, whose means are compared.
        control: likewise.
        difference: the new one's share less the control's, -1 to 1.
        reach: where the evidence is certainly below this, any number below it may be returned, which is found sooner.
    """
    (k1, n1), (k0, n0) = new, control
    low, high = max(0.0, -difference), min(1.0, 1.0 - difference)
    mixed = _mixed(k1, n1) + _mixed(k0, n0)

    def at(p: float) -> float:
        return mixed - _likelihood(k1, n1, p + difference) - _likelihood(k0, n0, p)

    guess = at(min(max((k1 + k0 - n1 * difference) / max(n1 + n0, 1), low), high))
    if guess < reach:
        return guess

    def slope(p: float) -> float:
        return _slope(k1, n1, p + difference) + _slope(k0, n0, p)

    for _ in range(40):  # to 1e-12; the sum is convex in the control's share
        middle = (low + high) / 2
        if slope(middle) < 0:
            low = middle
        else:
            high = middle
    return min(guess, at((low + high) / 2))


def against_quantiles(
    new: Sequence[float], control: Sequence[float], q: float, difference: float, *, reach: float = -inf
) -> float:
    """The evidence against q-quantiles that differ by this much, as `against_shares`, whatever the distributions are.

    Args:
        new: its values, sorted; any sequence that numpy takes as (n,) numbers.
        control: likewise.
        q: 0 to 1, such as .95.
        difference: the new one's quantile less the control's. Of logarithms it is that of a ratio.
        reach: as for `against_shares`.
    """
    n, m = len(new), len(control)
    if n == 0 or m == 0:
        return 0.0
    ends = new[max(ceil(q * n) - 1, 0)] - difference, control[max(ceil(q * m) - 1, 0)]
    middle = (ends[0] * n + ends[1] * m) / (n + m)
    guess = against_share(bisect_right(new, middle + difference), n, q) + against_share(bisect_right(control, middle), m, q)
    if guess < reach:
        return guess
    # Each side's evidence is least at its own quantile and grows from there on, so that the least sum lies between the two; and
    # between values it is no less than at them.
    low, high = min(ends), max(ends)
    sides = np.asarray(new, dtype=np.float64) - difference, np.asarray(control, dtype=np.float64)
    at = np.concatenate([one[np.searchsorted(one, low) : np.searchsorted(one, high, "right")] for one in sides])
    return float(np.min(_against(sides[0], at, q) + _against(sides[1], at, q)))


def difference_bounds(evidence: Callable[[float], float], estimate: float, alpha: float, low: float, high: float) -> Bounds:
    """For a difference: from the least to the most that is not ruled out.

    Args:
        evidence: against a difference; `against_shares` or `against_quantiles` of what was seen.
        estimate: a difference that is not ruled out, such as that of what was seen.
        alpha: the chance that a bound is ever wrong, both sides together.
        low: the least that a difference can be, or that is looked for.
        high: the most.
    """
    limit = -log(alpha)

    def out(difference: float) -> bool:
        return evidence(difference) >= limit

    least = _edge(out, low, estimate) if out(low) else low
    return Bounds(least, _edge(out, high, estimate) if out(high) else high)


class PairedEvidence:
    """The evidence about a mean of paired differences between -1 and 1, page by page, for one mean in question.

    `above` and `below` are the logarithms of two martingales: one that starts at 1 and is fair or worse if the mean is at most
    `mean`, one likewise if it is at least `mean`. Each reaches -ln(alpha) with a chance of at most alpha.
    """

    def __init__(self, mean: float, largest: int) -> None:
        """Args:
        mean: the one in question, -1 to 1.
        largest: the most questions of a page, known before the first; 1 where each question is alone.
        """
        if not -1 <= mean <= 1:
            raise ValueError(f"{mean} is no mean of differences between -1 and 1")
        self._mean, self._largest = mean, largest
        self._up, self._down = np.zeros(len(_BETS)), np.zeros(len(_BETS))

    def add(self, total: float, count: int) -> None:
        """The sum of the differences of a page's questions, and their number.

        Raises:
            ValueError: the page has more questions than `largest`.
        """
        if count > self._largest:
            raise ValueError(f"{count} questions of a page, where at most {self._largest} were said")
        away = (total - self._mean * count) / self._largest
        self._up += np.log1p(_BETS / max(1 + self._mean, _EDGE) * away)
        self._down += np.log1p(_BETS / max(1 - self._mean, _EDGE) * -away)

    @property
    def above(self) -> float:
        """Against a mean of at most the one in question."""
        return float(special.logsumexp(self._up)) - log(len(_BETS))

    @property
    def below(self) -> float:
        """Against a mean of at least the one in question."""
        return float(special.logsumexp(self._down)) - log(len(_BETS))


def paired_bounds(totals: NDArray[np.float64], counts: NDArray[np.float64], largest: int, alpha: float) -> Bounds:
    """For a mean of paired differences between -1 and 1, of which the pages in the order in which they came are given.

    Args:
        totals: the sum of the differences of each page, (pages,).
        counts: its questions, (pages,).
        largest: as for `PairedEvidence`.
        alpha: the chance that a bound is ever wrong, both sides together, half of it each.
    """
    if not len(totals):
        return Bounds(-1.0, 1.0)
    limit, mean = log(2 / alpha), float(totals.sum() / counts.sum())

    def wealth(at: float, sign: int) -> float:
        away = sign * (totals - at * counts) / largest
        bets = _BETS[:, None] / max(1 + sign * at, _EDGE)
        return float(special.logsumexp(np.log1p(bets * away).sum(axis=1))) - log(len(_BETS))

    low = _edge(lambda at: wealth(at, 1) >= limit, -1.0, mean) if wealth(-1.0 + _EDGE, 1) >= limit else -1.0
    high = -_edge(lambda at: wealth(-at, -1) >= limit, -1.0, -mean) if wealth(1.0 - _EDGE, -1) >= limit else 1.0
    return Bounds(low, high)


def _mixed(k: float, n: int) -> float:
    """The logarithm of the mixture's likelihood."""
    return lgamma(_PRIOR + k) + lgamma(_PRIOR + n - k) - lgamma(n + 1.0) - 2 * lgamma(_PRIOR)


def _likelihood(k: float, n: int, p: float) -> float:
    p = min(max(p, _EDGE), 1 - _EDGE)
    return k * log(p) + (n - k) * log1p(-p)


def _slope(k: float, n: int, p: float) -> float:
    """Of the negative likelihood."""
    p = min(max(p, _EDGE), 1 - _EDGE)
    return (n - k) / (1 - p) - k / p


def _against(values: NDArray[np.float64], at: NDArray[np.float64], q: float) -> NDArray[np.float64]:
    """The evidence against each point as the q-quantile. Values that equal it count on the side that makes it least."""
    n = len(values)
    below, up_to = np.searchsorted(values, at, "left"), np.searchsorted(values, at, "right")
    return _evidence(np.clip(n * q, below, up_to), n, q)


def _evidence(k: int | NDArray[np.int_] | NDArray[np.float64], n: int, p: float) -> NDArray[np.float64]:
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
