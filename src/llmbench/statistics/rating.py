"""Strengths of models from votes on pairs of answers: Bradley and Terry's model with Davidson's ties, and how sure they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from llmbench.statistics import davidson
from llmbench.statistics.clusters import Clusters
from llmbench.statistics.davidson import Cast, Fit
from llmbench.statistics.paired import holm
from llmbench.statistics.ratings import Effect, Lead, PairVote, Rating, Strength
from llmbench.statistics.sandwich import Spread, assumed, grouped, spread

__all__ = ["gains", "rate"]

Floats = NDArray[np.float64]

_WEAK = 0.01
"""Information of the prior on strengths that have no finite estimate: normal, ten logits wide."""
_OWN = 0.01
"""Share of an effect's variance that nothing else may explain, from which it is estimated."""
_DECIDED = 4.0
"""Standard errors at which a lead needs no more votes: votes of one voter are alike, which these errors do not count."""
_POWER = 0.841621
"""The normal quantile of 80 %."""
_DRAWS = 20_000


def rate(
    votes: Sequence[PairVote],
    *,
    confidence: float = 0.95,
    by: Sequence[str] = ("voter", "question"),
    styles: Sequence[str] = (),
    bootstrap: int = 0,
    seed: int = 0,
) -> Rating:
    """The strengths of the models that these votes join.

    Args:
        votes: at least one.
        confidence: of every interval.
        by: what makes votes alike: `voter`, `question`, both (at once) or neither.
        styles: the names of `PairVote.styles`, each a term of the model, so that strengths are of answers alike in style.
        bootstrap: how often voters are drawn anew for the intervals (percentiles); 0: intervals are in closed form.
        seed: of those draws and of the chance of being the best.

    Raises:
        ValueError: there is no vote.
    """
    if not votes:
        raise ValueError("there are no votes to rate by")
    models, apart = _joined(votes)
    kept = [vote for vote in votes if vote.left in models]
    cast, named = _cast(kept, models, styles)
    of = [grouped([getattr(vote, one) for vote in kept]) for one in by]
    blocks = _blocks(cast)
    found = davidson.fit(cast)
    while not found.arrived and named and len(set(blocks)) == 1:  # an effect has no finite estimate, strengths have
        cast, named = replace(cast, extra=cast.extra[:, :-1]), named[:-1]
        found = davidson.fit(cast)
    finite = found.arrived and len(set(blocks)) == 1
    if not finite:
        found = davidson.fit(cast, ridge=_WEAK)
    known = spread(cast, found, of)
    leads = _leads(cast, models, found, known, of, blocks, confidence)
    made = Rating(
        strengths=_strengths(cast, models, found, known, leads, confidence, seed) if finite else (),
        leads=leads,
        effects=_effects(cast, found, known, named, confidence) if finite else {},
        tie=_tie_share(cast, found),
        votes=len(kept),
        apart=apart,
        finite=finite,
        separated=len(set(blocks)) > 1,
        untold=tuple(name for name in ("left", *styles) if name not in named),
        degrees=known.degrees if math.isfinite(known.degrees) else None,
        clustered=tuple(name for name, one in zip(by, of, strict=True) if len(one.sizes) < len(kept)),
        log=found.log,
        order=tuple(models[i] for i in np.argsort(-found.b[: len(models)], kind="stable")),
    )
    return _bootstrapped(made, cast, models, kept, found, confidence, bootstrap, seed) if bootstrap else made


def gains(votes: Sequence[PairVote], models: Sequence[str]) -> dict[tuple[str, str], float]:
    """How much one more vote on each pair would narrow the interval that decides, as a share of its variance, 0 to 1.

    What decides is the lead of the best over the next, or where that is shown already, the least sure lead of two neighbours
    in the order. A pair that has no vote yet counts by a prior one logit wide, so that all are joined first.
    """
    number = {model: i for i, model in enumerate(models)}
    some = [vote for vote in votes if vote.left in number and vote.right in number]
    cast = _cast(some, list(models), ())[0]
    found = davidson.fit(cast, ridge=1.0)
    held = found.information + np.eye(cast.size)
    inverse = np.linalg.inv(held)
    b, k = found.b, len(models)
    order = np.argsort(-b[:k], kind="stable")
    sure = []
    for one, other in pairwise(order):
        c = _contrast(cast.size, int(one), int(other))
        sure.append((abs(b[one] - b[other]) / math.sqrt(c @ inverse @ c), c))
    best = sure[0] if sure[0][0] < _DECIDED else min(sure, key=lambda each: each[0])
    variance = best[1] @ inverse @ best[1]
    told = {}
    for i, j in combinations(range(k), 2):
        x = _contrast(cast.size, i, j)
        chance = 1 / (1 + math.exp(b[j] - b[i]))
        weight = chance * (1 - chance)
        told[models[i], models[j]] = float(weight * (best[1] @ inverse @ x) ** 2 / (1 + weight * (x @ inverse @ x)) / variance)
    return told


def _joined(votes: Sequence[PairVote]) -> tuple[list[str], tuple[str, ...]]:
    """The models of the largest set that votes join, by name, and the others: nothing says how these compare with them."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    models = sorted({model for vote in votes for model in (vote.left, vote.right)})
    number = {model: i for i, model in enumerate(models)}
    edges = ([number[vote.left] for vote in votes], [number[vote.right] for vote in votes])
    _, label = connected_components(csr_array((np.ones(len(votes)), edges), shape=(len(models),) * 2), directed=False)
    largest = Counter(label[edges[0]].tolist()).most_common(1)[0][0]
    return (
        [model for model, of in zip(models, label, strict=True) if of == largest],
        tuple(model for model, of in zip(models, label, strict=True) if of != largest),
    )


def _cast(votes: Sequence[PairVote], models: Sequence[str], styles: Sequence[str]) -> tuple[Cast, tuple[str, ...]]:
    """The votes in arrays, and the names of the columns of `extra`: `left`, then styles; those that can be told."""
    number = {model: i for i, model in enumerate(models)}
    names = ("left", *styles)
    cast = Cast(
        models=len(models),
        left=np.array([number[vote.left] for vote in votes], dtype=np.intp),
        right=np.array([number[vote.right] for vote in votes], dtype=np.intp),
        outcome=np.array([vote.outcome for vote in votes], dtype=np.float64),
        extra=np.array([[float(vote.sided), *vote.styles[: len(styles)]] for vote in votes]).reshape(len(votes), len(names)),
        weight=np.ones(len(votes)),
    )
    kept = _told(cast, names)
    return replace(cast, extra=cast.extra[:, kept]), tuple(names[i] for i in kept)


def _told(cast: Cast, names: Sequence[str]) -> list[int]:
    """The columns of `extra` that can be told from the models and from those before them.

    A column is left out where these explain all but a hundredth of it: a side where each pair always had the same model on the
    left, a style that a model always has.
    """
    kept: list[int] = []
    n = len(cast.left)
    design = np.zeros((n, cast.models))
    design[np.arange(n), cast.left] += 1.0
    design[np.arange(n), cast.right] -= 1.0
    for i in range(len(names)):
        x = cast.extra[:, i]
        full = np.column_stack([design, cast.extra[:, kept]])
        gram = full.T @ full + 1e-9 * np.eye(full.shape[1])
        rest = x - full @ np.linalg.solve(gram, full.T @ x)
        if rest @ rest > _OWN * (x @ x):
            kept.append(i)
    return kept


def _blocks(cast: Cast) -> list[int]:
    """Which models have beaten, or tied with, each other round about: in one block every lead is finite (Ford 1957)."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    ahead = np.concatenate([cast.left[cast.outcome >= 0], cast.right[cast.outcome <= 0]])
    behind = np.concatenate([cast.right[cast.outcome >= 0], cast.left[cast.outcome <= 0]])
    graph = csr_array((np.ones(len(ahead)), (ahead, behind)), shape=(cast.models,) * 2)
    blocks: list[int] = connected_components(graph, directed=True, connection="strong")[1].tolist()
    return blocks


def _contrast(size: int, plus: int, minus: int) -> Floats:
    c = np.zeros(size)
    c[plus], c[minus] = 1.0, -1.0
    return c


def _leads(
    cast: Cast, models: Sequence[str], found: Fit, known: Spread, of: Sequence[Clusters], blocks: list[int], confidence: float
) -> tuple[Lead, ...]:
    """Every pair, the stronger one first."""
    made = []
    t = _quantile(confidence, known.degrees)
    effect = _alike(cast, of, np.array(blocks))
    for one, other in combinations(range(len(models)), 2):
        i, j = (one, other) if found.b[one] >= found.b[other] else (other, one)
        value = float(found.b[i] - found.b[j])
        if blocks[i] == blocks[j]:
            error = known.error(_contrast(cast.size, i, j))
            low, high, p = value - t * error, value + t * error, _p(value, error, known.degrees)
        else:
            low, p = _from_below(cast, i, j, t, known.degrees, effect)
            error, high = math.inf, math.inf
        wins, losses, ties = _met(cast, i, j)
        made.append(Lead(models[i], models[j], value, low, high, p, p, wins, losses, ties, error))
    corrected = holm([lead.p for lead in made])
    strict = _quantile(1 - (1 - confidence) / max(1, len(made)), known.degrees) + _POWER
    return tuple(
        replace(lead, p_holm=p)
        if p < 1 - confidence
        else replace(lead, p_holm=p, low=min(lead.low, 0.0), more=_more(lead, len(cast.left), strict))
        for lead, p in zip(made, corrected, strict=True)
    )


def _more(lead: Lead, votes: int, needed: float) -> int | None:
    """How many votes more make the lead as many standard errors long as it takes."""
    if not lead.value or not math.isfinite(lead.error):
        return None
    return max(1, math.ceil(votes * (needed * lead.error / lead.value) ** 2) - votes)


def _alike(cast: Cast, of: Sequence[Clusters], blocks: NDArray[np.intp]) -> float:
    """The design effect that is assumed of the votes between blocks, which all went one way."""
    between = blocks[cast.left] != blocks[cast.right]
    return assumed([np.bincount(one.of[between]).astype(np.float64) for one in of if len(one.sizes) < len(one.of)])


def _met(cast: Cast, i: int, j: int) -> tuple[int, int, int]:
    """Votes on just these two: won by i, by j, ties."""
    straight, turned = (cast.left == i) & (cast.right == j), (cast.left == j) & (cast.right == i)
    x = np.concatenate([cast.outcome[straight], -cast.outcome[turned]])
    return int((x > 0).sum()), int((x < 0).sum()), int((x == 0).sum())


def _from_below(cast: Cast, i: int, j: int, t: float, degrees: float, effect: float) -> tuple[float, float]:
    """The lower end of a lead without an upper end, by the likelihood ratio, and its p.

    Unanimous votes show no likeness inside clusters, so the likelihood counts `effect` times less.
    """
    top = davidson.fit(cast, ridge=1e-5).log
    merged, sign = _merged(cast, i, j)

    def short(lead: float) -> float:
        return 2 * max(0.0, top - davidson.fit(merged, ridge=1e-5, offset=lead * sign).log) / effect

    low, high = -FARTHEST, FARTHEST
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if short(middle) > t * t else (low, middle)
    return (low + high) / 2, _p(math.sqrt(short(0.0)), 1.0, degrees)


FARTHEST = 15.0
"""Logits between which the end of an interval is looked for."""


def _merged(cast: Cast, i: int, j: int) -> tuple[Cast, Floats]:
    """The votes with i as strong as j, and what a lead of i adds to each vote's eta."""
    sign = (cast.left == i).astype(np.float64) - (cast.right == i)
    number = np.arange(cast.models)
    number[i] = j
    number -= number > i
    return replace(cast, models=cast.models - 1, left=number[cast.left], right=number[cast.right]), sign


def _strengths(
    cast: Cast, models: Sequence[str], found: Fit, known: Spread, leads: Sequence[Lead], confidence: float, seed: int
) -> tuple[Strength, ...]:
    """Every model, the strongest first; strengths are about their mean."""
    k, t = len(models), _quantile(confidence, known.degrees)
    drawn = found.b[:k] + known.draws(_DRAWS, seed)[:, :k]
    best = np.bincount(drawn.argmax(axis=1), minlength=k) / _DRAWS
    made = []
    for i in np.argsort(-found.b[:k], kind="stable"):
        contrast = np.zeros(cast.size)
        contrast[:k] = -1 / k
        contrast[i] += 1
        value, error = float(found.b[i]), known.error(contrast)
        left, right = cast.outcome[cast.left == i], -cast.outcome[cast.right == i]
        own = np.concatenate([left, right])
        above, below = _ranks(models[i], leads, 1 - confidence)
        made.append(
            Strength(
                models[i], value, value - t * error, value + t * error, 1 + above, k - below, float(best[i]),
                int((own > 0).sum()), int((own < 0).sum()), int((own == 0).sum()),
            )
        )  # fmt: skip
    return tuple(made)


def _ranks(model: str, leads: Sequence[Lead], alpha: float) -> tuple[int, int]:
    """How many models are shown to be stronger, and weaker, after Holm's correction (so for all ranks at once)."""
    return (
        sum(lead.b == model and lead.p_holm < alpha for lead in leads),
        sum(lead.a == model and lead.p_holm < alpha for lead in leads),
    )


def _effects(cast: Cast, found: Fit, known: Spread, named: Sequence[str], confidence: float) -> Mapping[str, Effect]:
    """How many logits the left side, and more of each style, add."""
    made, t = {}, _quantile(confidence, known.degrees)
    for i, name in enumerate(named):
        contrast = np.zeros(cast.size)
        contrast[cast.models + i] = 1.0
        value, error = float(found.b[cast.models + i]), known.error(contrast)
        made[name] = Effect(value, value - t * error, value + t * error, _p(value, error, known.degrees))
    return made


def _tie_share(cast: Cast, found: Fit) -> float:
    """The share of ties between two equally strong models."""
    tie = math.exp(found.b[-1]) if cast.ties else 0.0
    return tie / (2 + tie)


def _bootstrapped(
    made: Rating,
    cast: Cast,
    models: Sequence[str],
    votes: Sequence[PairVote],
    found: Fit,
    confidence: float,
    times: int,
    seed: int,
) -> Rating:
    """The same, with percentiles of draws of whole voters as intervals."""
    number: dict[str, int] = {}
    of = np.array([number.setdefault(vote.voter, len(number)) for vote in votes])
    rng = np.random.default_rng(seed)
    drawn = np.empty((times, cast.size))
    for i in range(times):
        counts = np.bincount(rng.integers(len(number), size=len(number)), minlength=len(number))
        drawn[i] = davidson.fit(cast.weighted(counts[of].astype(np.float64)), found.b, ridge=_WEAK).b
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    at = {model: drawn[:, i] for i, model in enumerate(models)}
    leads, strengths = [], []
    for lead in made.leads:
        low, high = np.quantile(at[lead.a] - at[lead.b], ends)
        low = float(low) if lead.p_holm < 1 - confidence else min(float(low), 0.0)
        leads.append(replace(lead, low=low, high=lead.high if math.isinf(lead.high) else float(high)))
    for one in made.strengths:
        low, high = np.quantile(at[one.model], ends)
        strengths.append(replace(one, low=float(low), high=float(high)))
    return replace(made, leads=tuple(leads), strengths=tuple(strengths), bootstrap=times)


def _quantile(confidence: float, degrees: float) -> float:
    from scipy import special

    level = (1 + confidence) / 2
    return float(special.stdtrit(degrees, level)) if math.isfinite(degrees) else float(special.ndtri(level))


def _p(value: float, error: float, degrees: float) -> float:
    from scipy import special

    if not error:
        return 1.0
    t = -abs(value) / error
    return min(1.0, 2 * float(special.stdtr(degrees, t) if math.isfinite(degrees) else special.ndtr(t)))
