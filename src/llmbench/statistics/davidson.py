"""Bradley and Terry's model of votes with Davidson's ties: its likelihood, its maximum by Newton's method, its derivatives.

With eta = strength(left) - strength(right) + extra . effects, the three outcomes have odds exp(eta / 2), exp(-eta / 2) and
exp(tie): Davidson (1970); without ties it is Bradley and Terry's (1952). The log-likelihood is concave, and since the family is
exponential in (eta, tie), the observed information is the expected one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["FAR", "Cast", "Fit", "fit", "informations", "scores"]

Floats = NDArray[np.float64]
Numbers = NDArray[np.intp]

FAR = 12.0
"""Logits beyond which a strength is taken to grow without end: e^12 is 160,000 to one."""
_ROUNDS = 60
_STILL = 1e-10
"""Newton's step below which it has arrived, in logits."""
_GROUND = 1e-9
"""Information that every strength and effect is given, so that what no vote tells stays where it was."""


@dataclass(frozen=True)
class Cast:
    """n votes in arrays.

    `left` and `right` are numbers of models, from 0 to `models` - 1; `outcome` is 1 where the left one won, -1 where the right
    one did, 0 for a tie; `extra` is n x q, what else bears on eta (the side, which is 1, and differences of style); `weight`
    counts a vote several times, as a bootstrap does.
    """

    models: int
    left: Numbers
    right: Numbers
    outcome: Floats
    extra: Floats
    weight: Floats

    @property
    def ties(self) -> bool:
        """Whether any vote is a tie; without, there is no parameter of ties."""
        return bool((self.outcome == 0).any())

    @property
    def size(self) -> int:
        """How many parameters there are: strengths, effects of `extra`, and the one of ties."""
        return int(self.models + self.extra.shape[1] + self.ties)

    def weighted(self, weight: Floats) -> Self:
        """The same votes, counted otherwise."""
        return replace(self, weight=weight)

    def eta(self, b: Floats) -> Floats:
        """The log odds of left against right."""
        of_extra = self.extra @ b[self.models : self.models + self.extra.shape[1]]
        return b[self.left] - b[self.right] + of_extra


@dataclass(frozen=True)
class Fit:
    """The maximum of a likelihood. `b` holds strengths (mean 0), effects, and the tie's; `log` is the log-likelihood there.

    `information` is that of `b`, without the direction in which all strengths move together. `arrived` says that the maximum is
    finite and was found.
    """

    b: Floats
    log: float
    information: Floats
    arrived: bool


def fit(cast: Cast, start: Floats | None = None, *, ridge: float = 0.0, offset: Floats | float = 0.0) -> Fit:
    """The maximum likelihood, by Newton's method with halved steps.

    Args:
        cast: the votes.
        start: where to begin; 0 by default.
        ridge: a weak prior, as the information that it adds to each strength and effect; it keeps a maximum finite.
        offset: what is added to each vote's eta.
    """
    b = np.zeros(cast.size) if start is None else start.copy()
    held = np.full(cast.size, ridge + _GROUND)
    log = _log(cast, b, offset) - held @ (b * b) / 2
    together = np.zeros((cast.size, cast.size))
    together[: cast.models, : cast.models] = 1.0
    arrived = False
    for _ in range(_ROUNDS):
        gradient, information = _derivatives(cast, b, offset)
        step = np.linalg.solve(information + np.diag(held) + together, gradient - held * b)
        size = 1.0
        while (new := _log(cast, b + size * step, offset) - held @ (b + size * step) ** 2 / 2) < log - 1e-12 and size > 1e-6:
            size /= 2
        b, log = b + size * step, new
        if np.abs(size * step).max() < _STILL:
            arrived = True
            break
        if np.abs(b).max() > 2 * FAR and not ridge:
            break
    b[: cast.models] -= b[: cast.models].mean()
    return Fit(b, _log(cast, b, offset), _derivatives(cast, b, offset)[1], arrived and bool(np.abs(b).max() < FAR))


def scores(cast: Cast, b: Floats, groups: Numbers, count: int) -> Floats:
    """Each group's sum of the gradient, count x parameters."""
    e, of_tie = _residuals(cast, b)
    return _gathered(cast, e, of_tie, groups, count)


def informations(cast: Cast, b: Floats, groups: Numbers, count: int, offset: Floats | float = 0.0) -> Floats:
    """Each group's sum of the information, count x parameters x parameters."""
    aa, at, tt = _weights(cast, b, offset)
    p, k = cast.size, cast.models
    found = np.zeros((count, p, p))
    none = np.zeros(len(aa))
    # Each column's weights with eta twice, with the tie, and the column itself; the last is the tie's own.
    columns = [(aa * x, at * x, x) for x in cast.extra.T] + ([(at, tt, none)] if cast.ties else [])
    flat = found.reshape(-1)

    def add(row: Numbers | int, column: Numbers | int, what: Floats) -> None:
        flat[:] += np.bincount((groups * p + row) * p + column, what, minlength=flat.size)

    for one, other, sign in (
        (cast.left, cast.left, 1), (cast.right, cast.right, 1), (cast.left, cast.right, -1), (cast.right, cast.left, -1),
    ):  # fmt: skip
        add(one, other, sign * aa)
    last = len(columns) - 1 if cast.ties else len(columns)
    for i, (with_eta, with_tie, _) in enumerate(columns):
        for model, sign in ((cast.left, 1), (cast.right, -1)):
            add(model, k + i, sign * with_eta)
            add(k + i, model, sign * with_eta)
        for j, (_, other_tie, y) in enumerate(columns):
            add(k + i, k + j, with_tie if j == last else other_tie if i == last else with_eta * y)
    return found


def _probabilities(cast: Cast, b: Floats, offset: Floats | float = 0.0) -> tuple[Floats, Floats, Floats, Floats]:
    """Of left, right and tie, and the log of their common denominator."""
    half = (cast.eta(b) + offset) / 2
    logs = np.stack([half, -half, np.full_like(half, b[-1] if cast.ties else -np.inf)])
    top = logs.max(axis=0)
    denominator = top + np.log(np.exp(logs - top).sum(axis=0))
    left, right, tie = np.exp(logs - denominator)
    return left, right, tie, denominator


def _log(cast: Cast, b: Floats, offset: Floats | float = 0.0) -> float:
    half = (cast.eta(b) + offset) / 2
    of_tie = (cast.outcome == 0) * b[-1] if cast.ties else 0.0
    return float(cast.weight @ (cast.outcome * half + of_tie - _probabilities(cast, b, offset)[3]))


def _residuals(cast: Cast, b: Floats, offset: Floats | float = 0.0) -> tuple[Floats, Floats]:
    """The derivatives of each vote's log-likelihood by eta and by the tie's parameter."""
    left, right, tie, _ = _probabilities(cast, b, offset)
    return cast.weight * (cast.outcome - left + right) / 2, cast.weight * ((cast.outcome == 0) - tie)


def _weights(cast: Cast, b: Floats, offset: Floats | float = 0.0) -> tuple[Floats, Floats, Floats]:
    """The second derivatives of the log of the denominator: by eta twice, by eta and tie, by tie twice."""
    left, right, tie, _ = _probabilities(cast, b, offset)
    return (
        cast.weight * (left + right - (left - right) ** 2) / 4,
        -cast.weight * (left - right) * tie / 2,
        cast.weight * tie * (1 - tie),
    )


def _gathered(cast: Cast, e: Floats, of_tie: Floats, groups: Numbers, count: int) -> Floats:
    p, k = cast.size, cast.models
    flat = np.zeros(count * p)
    for model, sign in ((cast.left, 1), (cast.right, -1)):
        flat += np.bincount(groups * p + model, sign * e, minlength=count * p)
    for i, x in enumerate(cast.extra.T):
        flat += np.bincount(groups * p + k + i, e * x, minlength=count * p)
    if cast.ties:
        flat += np.bincount(groups * p + p - 1, of_tie, minlength=count * p)
    return flat.reshape(count, p)


def _derivatives(cast: Cast, b: Floats, offset: Floats | float) -> tuple[Floats, Floats]:
    """The gradient and the information of all votes together."""
    one = np.zeros(len(cast.left), dtype=np.intp)
    gradient = _gathered(cast, *_residuals(cast, b, offset), one, 1)[0]
    return gradient, informations(cast, b, one, 1, offset)[0]
