"""How often the intervals of ratings from votes cover, what a side does to them, and how fast chosen pairs decide.

    python benchmarks/ratings.py [--draws 1000] [--seed 0] [--only coverage]

Prints Markdown tables. Every share of 1,000 draws has a standard error of at most 1.6 points, near 95 % of 0.7.
`--only libraries` compares with choix, evalica and statsmodels, where they are installed.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray
from scipy import special

from llmbench.statistics import agreement, davidson, rating, sandwich
from llmbench.statistics.ratings import PairVote

MODELS = ("a", "b", "c", "d")
STRENGTHS = np.array([0.6, 0.2, -0.2, -0.6])
Floats = NDArray[np.float64]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--draws", type=int, default=1000)
    arguments.add_argument("--seed", type=int, default=0)
    tables = {one.__name__: one for one in (coverage, both, sides, unanimous, ranks, choosing, agreeing, libraries, scale)}
    arguments.add_argument("--only", choices=tables)
    options = arguments.parse_args()
    for table in [tables[options.only]] if options.only else tables.values():
        table(np.random.default_rng(options.seed), options.draws)
        print(flush=True)


def cast(
    rng: np.random.Generator,
    votes: int,
    voters: int,
    *,
    taste: float = 0.7,
    questions: int = 0,
    hard: float = 0.0,
    side: float = 0.4,
    tie: float | None = None,
    strengths: Floats = STRENGTHS,
    turned: bool = True,
) -> list[PairVote]:
    """Votes of people with tastes (normal, `taste` logits a model) on questions that suit models (`hard` logits each)."""
    k = len(strengths)
    left = rng.integers(k, size=votes)
    right = (left + rng.integers(1, k, size=votes)) % k
    if not turned:
        left, right = np.minimum(left, right), np.maximum(left, right)
    voter = np.arange(votes) % voters
    question = np.arange(votes) // voters if not questions else rng.integers(questions, size=votes)
    tastes = rng.normal(0, taste, (voters, k)) + strengths
    suits = rng.normal(0, hard, (question.max() + 1, k))
    worth = tastes[voter] + suits[question]
    each = np.arange(votes)
    eta = worth[each, left] - worth[each, right] + side
    odds = np.stack([np.exp(eta / 2), np.exp(-eta / 2), np.full(votes, 0.0 if tie is None else math.exp(tie))])
    outcome = np.array([1, -1, 0])[(rng.random(votes) > np.cumsum(odds / odds.sum(axis=0), axis=0)).sum(axis=0).clip(0, 2)]
    names = [*MODELS, *(f"m{i}" for i in range(k))]
    return [
        PairVote(names[i], names[j], int(y), f"v{v}", f"q{q}")
        for i, j, y, v, q in zip(left, right, outcome, voter, question, strict=True)
    ]


@cache
def truth(taste: float, hard: float, side: float, tie: float | None) -> tuple[float, ...]:
    """The strengths that a great many voters, one vote each, would give: tastes make them smaller than `STRENGTHS`."""
    rng = np.random.default_rng(99)
    votes = cast(rng, 400_000, 400_000, taste=taste, questions=400_000, hard=hard, side=side, tie=tie)
    made, _ = rating._cast(votes, MODELS, ())
    return tuple(davidson.fit(made).b[:4])


Way = Callable[[davidson.Cast, davidson.Fit, Sequence[PairVote]], tuple[Floats, float]]


def fisher(made: davidson.Cast, found: davidson.Fit, votes: Sequence[PairVote]) -> tuple[Floats, float]:
    """The inverse information: each vote independent."""
    return _inverse(made, found), math.inf


def plain(made: davidson.Cast, found: davidson.Fit, votes: Sequence[PairVote]) -> tuple[Floats, float]:
    """The sandwich by voter as it is mostly used: no factor, normal quantiles."""
    inverse, groups = _inverse(made, found), sandwich.grouped([one.voter for one in votes])
    sums = davidson.scores(made, found.b, groups.of, len(groups.sizes))
    return inverse @ (sums.T @ sums) @ inverse, math.inf


def corrected(made: davidson.Cast, found: davidson.Fit, votes: Sequence[PairVote]) -> tuple[Floats, float]:
    """The same with G / (G - 1) and Student's t."""
    v, _ = plain(made, found, votes)
    count = len({one.voter for one in votes})
    return v * count / (count - 1), count - 1.0


def ours(*by: str) -> Way:
    """What `rate` does."""

    def way(made: davidson.Cast, found: davidson.Fit, votes: Sequence[PairVote]) -> tuple[Floats, float]:
        known = sandwich.spread(made, found, [sandwich.grouped([getattr(vote, one) for vote in votes]) for one in by])
        return known.each, known.degrees  # type: ignore[return-value]

    return way


def _inverse(made: davidson.Cast, found: davidson.Fit) -> Floats:
    held = found.information + 1e-9 * np.eye(made.size)
    held[: made.models, : made.models] += 1.0
    return np.asarray(np.linalg.inv(held), dtype=np.float64)


def covered(votes: Sequence[PairVote], ways: Sequence[Way], true: Sequence[float]) -> tuple[Floats, Floats]:
    """For each way, the share of the six leads whose interval holds the true one, and their mean width."""
    made, _ = rating._cast(votes, MODELS, ())
    found = davidson.fit(made)
    if not found.arrived:
        return np.full(len(ways), np.nan), np.full(len(ways), np.nan)
    hits, widths = [], []
    for way in ways:
        v, degrees = way(made, found, votes)
        each = v if isinstance(v, tuple) else (v,)
        t = special.stdtrit(degrees, 0.975) if math.isfinite(degrees) else 1.959964
        inside, wide = [], []
        for i in range(4):
            for j in range(i):
                c = np.zeros(made.size)
                c[i], c[j] = 1, -1
                half = t * math.sqrt(max(0.0, *(float(c @ one @ c) for one in each)))
                inside.append(abs(found.b[i] - found.b[j] - true[i] + true[j]) <= half)
                wide.append(2 * half)
        hits.append(np.mean(inside))
        widths.append(np.mean(wide))
    return np.array(hits), np.array(widths)


def coverage(rng: np.random.Generator, draws: int) -> None:
    """Voters with tastes: the intervals of leads, nominal 95 %."""
    print("| votes, voters, taste (logits) | Fisher | sandwich by voter | with G / (G - 1) and t | jackknife and t | width |")
    print("| --- | --- | --- | --- | --- | --- |")
    ways = (fisher, plain, corrected, ours("voter"))
    for votes, voters, taste, tie in (
        (400, 20, 0.7, None), (400, 8, 0.7, None), (200, 6, 0.7, None), (400, 5, 0.7, None), (1000, 50, 0.7, None),
        (400, 20, 0.7, -0.3), (400, 20, 0.0, None), (100, 20, 0.7, None), (400, 20, 1.5, None),
    ):  # fmt: skip
        true = truth(taste, 0.0, 0.4, tie)
        found = [covered(cast(rng, votes, voters, taste=taste, tie=tie), ways, true) for _ in range(draws)]
        hits, widths = np.nanmean([one[0] for one in found], axis=0), np.nanmean([one[1] for one in found], axis=0)
        cells = " | ".join(f"{one:.3f}" for one in hits)
        print(f"| {votes}, {voters}, {taste}{', ties' if tie else ''} | {cells} | {widths[-1]:.2f} |", flush=True)


def both(rng: np.random.Generator, draws: int) -> None:
    """Few questions that suit some models, each voted on by many: questions are clusters, too."""
    print("| votes, voters, questions, taste, suiting | by voter | by question | by both |\n| --- | --- | --- | --- |")
    ways = (ours("voter"), ours("question"), ours("voter", "question"))
    for votes, voters, questions, taste, hard in (
        (600, 20, 30, 0.7, 0.0), (600, 20, 30, 0.0, 0.7), (600, 20, 30, 0.7, 0.7), (600, 10, 15, 0.7, 0.7),
        (600, 20, 600, 0.7, 0.7), (600, 20, 30, 0.0, 0.0),
    ):  # fmt: skip
        true = truth(taste, hard, 0.4, None)
        made = (cast(rng, votes, voters, taste=taste, questions=questions, hard=hard) for _ in range(draws))
        cells = " | ".join(f"{one:.3f}" for one in np.nanmean([covered(one, ways, true)[0] for one in made], axis=0))
        print(f"| {votes}, {voters}, {questions}, {taste}, {hard} | {cells} |", flush=True)


def sides(rng: np.random.Generator, draws: int) -> None:
    """What an advantage of the left side of .4 logits does to the lead of a over d."""
    print("| sides | the left side in the model | bias of a's lead over d, logits |\n| --- | --- | --- |")
    for turned, modelled in ((False, False), (True, False), (True, True)):
        leads = []
        for _ in range(max(1, draws // 5)):
            votes = cast(rng, 2000, 2000, taste=0.0, turned=turned)
            if not modelled:
                votes = [PairVote(one.left, one.right, one.outcome, one.voter, one.question, sided=False) for one in votes]
            lead = rating.rate(votes, by=()).lead("a", "d")
            assert lead is not None
            leads.append(lead.value)
        words = ("drawn" if turned else "a always left"), ("yes" if modelled else "no")
        print(
            f"| {' | '.join(words)} | {np.mean(leads) - 1.2:+.3f} +- {np.std(leads) / math.sqrt(len(leads)):.3f} |", flush=True
        )


def unanimous(rng: np.random.Generator, draws: int) -> None:
    """Two variants of which one nearly always wins: both kinds of interval, as they come."""
    print("| votes, voters, share won | a lead is shown | share covered | without an upper end |\n| --- | --- | --- | --- |")
    for votes, voters, share in ((30, 30, 0.5), (30, 30, 0.95), (40, 8, 0.95), (40, 8, 0.99), (200, 20, 0.99)):
        logit = math.log(share / (1 - share))
        found = []
        for _ in range(draws):
            strengths = np.array([logit / 2, -logit / 2])
            made = cast(rng, votes, voters, taste=0.0, side=0.0, strengths=strengths)
            lead = rating.rate(made).leads[0]
            value, low, high = lead.share
            if lead.a == "b":
                value, low, high = 1 - value, 1 - high, 1 - low
            found.append((lead.p_holm < 0.05, low <= share <= high, math.isinf(lead.high)))
        cells = " | ".join(f"{one:.3f}" for one in np.mean(found, axis=0))
        print(f"| {votes}, {voters}, {share} | {cells} |", flush=True)


def ranks(rng: np.random.Generator, draws: int) -> None:
    """Whether all ranks are covered at once (95 %), and how often who has a chance of being the best is it."""
    print("| strengths | all ranks covered | ranks known | chance of the first to be best | it is |")
    print("| --- | --- | --- | --- | --- |")
    each = {"all equal": np.zeros(4), "0.4 apart": STRENGTHS, "two alike": np.array([0.5, 0.5, -0.5, -0.5])}
    for name, strengths in each.items():
        all_in, known, said, right = [], [], [], []
        # Equal models share their ranks: each may be any of them.
        best = strengths == strengths.max()
        for _ in range(draws):
            found = rating.rate(cast(rng, 300, 30, taste=0.3, strengths=strengths))
            if not found.strengths:
                continue
            spans = {one.model: (one.rank_low, one.rank_high) for one in found.strengths}
            fits = [
                spans[m][0] <= 1 + (strengths > s).sum() and spans[m][1] >= (strengths >= s).sum()
                for m, s in zip(MODELS, strengths, strict=True)
            ]
            all_in.append(all(fits))
            known.append(np.mean([4 - (high - low) for low, high in spans.values()]))
            said.append(found.strengths[0].best)
            right.append(best[MODELS.index(found.strengths[0].model)] / best.sum())
        cells = f"{np.mean(all_in):.3f} | {np.mean(known):.1f} of 4 | {np.mean(said):.2f} | {np.mean(right):.2f}"
        print(f"| {name} | {cells} |", flush=True)


def choosing(rng: np.random.Generator, draws: int) -> None:
    """Six models: the standard error of the lead of the best over the next, with pairs chosen or drawn."""
    print("| votes | pairs drawn | pairs chosen | as many drawn votes |\n| --- | --- | --- | --- |")
    strengths = dict(zip("abcdef", (0.5, 0.3, -0.5, -0.8, -1.1, -1.4), strict=True))
    pairs = [(one, other) for one in strengths for other in strengths if one < other]
    for count in (60, 120, 240):
        errors: dict[bool, list[float]] = {False: [], True: []}
        for choose in errors:
            for _ in range(max(1, draws // 25)):
                votes: list[PairVote] = []
                pool = pairs
                for i in range(count):
                    if choose and i % 5 == 0:
                        told = rating.gains(votes, list(strengths))
                        pool = sorted(told, key=lambda pair: -told[pair])[:1]
                    left, right = pool[rng.integers(len(pool))][:: 1 if rng.random() < 0.5 else -1]
                    chance = 1 / (1 + math.exp(strengths[right] - strengths[left]))
                    votes.append(PairVote(left, right, 1 if rng.random() < chance else -1, f"v{i}", f"q{i}"))
                lead = rating.rate(votes, by=()).lead("a", "b")
                if lead is not None and math.isfinite(lead.error):
                    errors[choose].append(lead.error)
        drawn, chosen = (float(np.median(errors[one])) for one in (False, True))
        print(f"| {count} | {drawn:.3f} | {chosen:.3f} | {count * (drawn / chosen) ** 2:.0f} |", flush=True)


def agreeing(rng: np.random.Generator, draws: int) -> None:
    """Raters who say what is true with a chance, else anything: the interval of alpha, nominal 95 %."""
    print("| items, raters, reliability | alpha | covers | width |\n| --- | --- | --- | --- |")
    for items, raters, sure in ((20, 3, 0.7), (50, 3, 0.7), (150, 2, 0.5), (50, 3, 0.9), (50, 5, 0.3), (50, 3, 0.0)):
        true, inside, wide = sure * sure, [], []
        for _ in range(draws):
            real = rng.integers(3, size=items)
            said = np.where(rng.random((raters, items)) < sure, real, rng.integers(3, size=(raters, items)))
            labels = {str(i): {str(r): str(said[r, i]) for r in range(raters)} for i in range(items)}
            found = agreement.alpha(labels)
            if found is not None and not math.isnan(found.low):
                inside.append(found.low <= true <= found.high)
                wide.append(found.high - found.low)
        print(f"| {items}, {raters}, {sure} | {true:.2f} | {np.mean(inside):.3f} | {np.mean(wide):.2f} |", flush=True)


def libraries(rng: np.random.Generator, draws: int) -> None:
    """The same strengths by other libraries, where they are installed, on the same votes without ties and sides."""
    votes = cast(rng, 2000, 20, side=0.0)
    votes = [PairVote(one.left, one.right, one.outcome, one.voter, one.question, sided=False) for one in votes]
    wins = [(one.left, one.right) if one.outcome > 0 else (one.right, one.left) for one in votes]
    number = {model: i for i, model in enumerate(MODELS)}
    began = time.perf_counter()
    found = rating.rate(votes, by=("voter",))
    took = time.perf_counter() - began
    ours_ = {one.model: one.value for one in found.strengths}
    print("| library | strengths of a, b, c, d | largest difference | seconds |\n| --- | --- | --- | --- |")
    print(f"| llmbench, with intervals | {_listed(ours_)} | | {took:.4f} |")
    if find_spec("choix"):
        import choix

        began = time.perf_counter()
        theirs = choix.opt_pairwise(4, [(number[a], number[b]) for a, b in wins], alpha=0.0)
        _row("choix.opt_pairwise", dict(zip(MODELS, theirs - np.mean(theirs), strict=True)), ours_, began)
    if find_spec("evalica"):
        import evalica

        began = time.perf_counter()
        first, second = ([pair[i] for pair in wins] for i in (0, 1))
        result = evalica.bradley_terry(first, second, [evalica.Winner.X] * len(wins), tolerance=1e-12)
        logs = {model: math.log(score) for model, score in result.scores.items()}
        _row(
            "evalica.bradley_terry",
            {model: logs[model] - float(np.mean(list(logs.values()))) for model in MODELS},
            ours_,
            began,
        )
    if find_spec("statsmodels"):
        import statsmodels.api as sm

        x = np.zeros((len(votes), 4))
        for row, one in zip(x, votes, strict=True):
            row[number[one.left]], row[number[one.right]] = 1, -1
        y = np.array([one.outcome > 0 for one in votes], dtype=float)
        groups = np.array([int(one.voter[1:]) for one in votes])
        began = time.perf_counter()
        fitted = sm.Logit(y, x[:, :3]).fit(disp=0, cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False})
        params = np.array([*fitted.params, 0.0])
        _row("statsmodels Logit", dict(zip(MODELS, params - params.mean(), strict=True)), ours_, began)
        made, _ = rating._cast(votes, MODELS, ())
        v, _ = plain(made, davidson.fit(made), votes)
        c = np.array([1.0, 0, 0, -1])
        print(f"\nSandwich by voter, a over d: statsmodels {fitted.bse[0]:.6f}, here {math.sqrt(c @ v[:4, :4] @ c):.6f}.")


def _listed(of: dict[str, float]) -> str:
    return ", ".join(f"{of[model]:.4f}" for model in MODELS)


def _row(name: str, of: dict[str, float], known: dict[str, float], began: float) -> None:
    took = time.perf_counter() - began
    print(f"| {name} | {_listed(of)} | {max(abs(of[m] - known[m]) for m in MODELS):.1e} | {took:.4f} |")


def scale(rng: np.random.Generator, draws: int) -> None:
    """Many votes, models and voters, as the public arenas have."""
    print("| votes, models, voters | seconds, all figures | of which the maximum |\n| --- | --- | --- |")
    for votes, models, voters in ((1_000, 6, 20), (33_000, 20, 13_000), (100_000, 60, 30_000)):
        made = cast(rng, votes, voters, strengths=rng.normal(0, 0.7, models), tie=-0.5)
        began = time.perf_counter()
        rating.rate(made, by=("voter",))
        whole = time.perf_counter() - began
        arrays, _ = rating._cast(made, sorted({one for vote in made for one in (vote.left, vote.right)}), ())
        began = time.perf_counter()
        davidson.fit(arrays)
        print(f"| {votes:,}, {models}, {voters:,} | {whole:.2f} | {time.perf_counter() - began:.2f} |", flush=True)


if __name__ == "__main__":
    main()
