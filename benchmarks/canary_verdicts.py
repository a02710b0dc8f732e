"""How often a canary that is no worse is rolled back, and how many requests it takes to notice one that is, by simulation.

    python benchmarks/canary_verdicts.py [--runs 2000] [--units 500] [--only a-a|worse|votes] [--seed 0]

Drives `llmbench.gateway.traffic.rollout.Rollout`, the class that decides in the gateway, without HTTP: each unit asks once, is
assigned by hash as in the gateway, and after each of them the rollout is looked at. The chances of a unit are drawn evenly; the
margins of the A/A rows are 0, at which every guard-rail is as likely to be found worse as it can be.
Units vote, and are judged, right after their answers, if they do.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from llmbench.gateway.traffic.assignment import arm_of
from llmbench.gateway.traffic.rollout import LIVE, Rollout, RolloutPlan
from llmbench.gateway.traffic.verdict import KINDS, LATER
from llmbench.recipe import RouteSpec

MARGINS = {"errors": 0.02, "first_token": 0.25, "length": 1.0, "abstention": 0.1, "citations": 0.1}


@dataclass(frozen=True)
class Behaviour:
    """What a variant's answers are like: shares of bad ones, lognormal seconds and lengths, up-votes and scores.

    `heard` is the share of units that vote, or are judged. Scores are of a beta distribution with a sum of parameters of 5.
    """

    errors: float = 0.01
    abstention: float = 0.1
    citations: float = 0.05
    first_token: float = 0.2
    length: float = 300.0
    spread: float = 0.6
    votes: float = 0.8
    judge: float = 0.8
    heard: float = 1.0


Case = tuple[str, Behaviour, Behaviour, dict[str, float], tuple[float, ...], int, int]
"""Name, control, canary, margins, plan, runs and units."""


def main() -> None:
    """Prints one row for each case."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--runs", type=int, default=2000)
    arguments.add_argument("--units", type=int, default=500, help="of an A/A; the others have 100 times as many at most")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--only", choices=("a-a", "worse", "votes"))
    options = arguments.parse_args()
    even, same = (50.0, 100.0), Behaviour()
    bad = replace(same, errors=0.05, abstention=0.3, citations=0.2)
    climbing, most = (5.0, 25.0, 50.0, 100.0), 100 * options.units
    cases = [
        ("A/A, margins 0, 50 %", same, same, dict.fromkeys(MARGINS, 0.0), even, options.runs, options.units),
        ("A/A, margins 0, 5, 25, 50 %", same, same, dict.fromkeys(MARGINS, 0.0), climbing, options.runs, options.units),
        ("A/A of a worse pair, margins 0, 50 %", bad, bad, dict.fromkeys(MARGINS, 0.0), even, options.runs, options.units),
        ("A/A, usual margins, 5, 25, 50 %", same, same, MARGINS, climbing, options.runs // 50, most),
        ("errors 1 -> 5 %", same, replace(same, errors=0.05), MARGINS, climbing, options.runs // 50, most),
        ("errors 1 -> 10 %", same, replace(same, errors=0.10), MARGINS, climbing, options.runs // 50, most),
        ("errors 1 -> 50 %", same, replace(same, errors=0.5), MARGINS, climbing, options.runs // 50, most),
        ("abstention 10 -> 30 %", same, replace(same, abstention=0.3), MARGINS, climbing, options.runs // 50, most),
        ("citations that fail 5 -> 30 %", same, replace(same, citations=0.3), MARGINS, climbing, options.runs // 50, most),
        ("first token twice as late", same, replace(same, first_token=0.4), MARGINS, climbing, options.runs // 50, most),
        ("a fifth as long", same, replace(same, length=60.0), MARGINS, climbing, options.runs // 50, most),
        *of_feedback(options.runs, options.units),
    ]
    print("| case | runs | rolled back | promoted | undecided | units until the end, median (9 of 10) | of the canary |")
    print("|---|---|---|---|---|---|---|")
    for number, (name, control, canary, margins, plan, runs, units) in enumerate(cases):
        if options.only in (None, "votes" if set(margins) & set(LATER) else "a-a" if name.startswith("A/A") else "worse"):
            row(name, control, canary, margins, plan, runs, units, options.seed + number)


def of_feedback(runs: int, units: int) -> Iterator[Case]:
    """The cases of votes and scores: alone with all of alpha where nothing is worse, and next to the others where it is."""
    same, even, climbing = Behaviour(), (50.0, 100.0), (5.0, 25.0, 50.0, 100.0)
    for rail in LATER:
        yield f"A/A, {rail} alone, margin 0, 50 %", same, same, {rail: 0.0}, even, runs, units
    rare, eager = replace(same, heard=0.1), replace(same, heard=0.3)
    yield "A/A, votes of one in ten, margin 0, 50 %", rare, rare, {"votes": 0.0}, even, runs, 4 * units
    yield "A/A, thrice as many vote, margin 0, 50 %", rare, eager, {"votes": 0.0}, even, runs, 4 * units
    margins, few, most = MARGINS | dict.fromkeys(LATER, 0.1), runs // 50, 200 * units
    yield "the same, all vote and are judged", same, same, margins, climbing, few // 4, most
    yield "up-votes 80 -> 60 %, all vote", same, replace(same, votes=0.6), margins, climbing, few, most
    yield "judge .8 -> .6, all are judged", same, replace(same, judge=0.6), margins, climbing, few, most
    yield "up-votes 80 -> 60 %, one in ten votes", rare, replace(rare, votes=0.6), margins, climbing, few // 5, most


def row(
    name: str,
    control: Behaviour,
    canary: Behaviour,
    margins: dict[str, float],
    plan: tuple[float, ...],
    runs: int,
    units: int,
    seed: int,
) -> None:
    """One case, run many times."""
    begun, ends, after, exposed = time.process_time(), Counter[str](), list[int](), list[int]()
    rails = {rail: margins.get(rail) for rail in KINDS}
    spec = RouteSpec.model_validate(
        {"name": "r", "variants": {"old": 1}, "guardrails": rails, "rollout": {"plan": plan, "most": 10**9}}
    )
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        rollout = Rollout(RolloutPlan.of(spec, "new", spec.variants, run))
        seen, asked = 0, 0
        while seen < units and rollout.stand in LIVE:
            for unit in range(seen, min(seen + 500, units)):
                seen += 1
                arm = arm_of(rollout.plan.experiment, str(unit), rollout.weights)
                asked += arm == "new"
                behaviour = canary if arm == "new" else control
                rollout.add(arm, str(unit), answer(rng, behaviour))
                said = feedback(rng, behaviour) if set(margins) & set(LATER) else {}
                for rail, value in said.items():
                    rollout.learn(arm, str(unit), rail, value)
                rollout.settle(arm)
                if said or behaviour.heard == 1:  # whoever is not heard changes nothing about votes
                    rollout.look()
                if rollout.stand not in LIVE:
                    break
        ends[rollout.stand] += 1
        if rollout.stand in ("rolled back", "promoted"):
            after.append(seen)
            exposed.append(asked)
    ended = f"{median(after):,.0f} ({np.quantile(after, 0.9):,.0f})" if after else "-"
    few = f"{median(exposed):,.0f}" if exposed else "-"
    rest = runs - ends["rolled back"] - ends["promoted"]
    cells = [name, f"{runs:,}", f"{ends['rolled back'] / runs:.4f}", f"{ends['promoted'] / runs:.3f}", f"{rest / runs:.3f}"]
    print(f"| {' | '.join([*cells, ended, few])} |", flush=True)
    print(f"{name}: {time.process_time() - begun:.0f} s, {dict(ends)}", file=sys.stderr, flush=True)


def answer(rng: np.random.Generator, like: Behaviour) -> dict[str, float]:
    """What one answer says."""
    u = rng.random(3)
    if u[0] < like.errors:
        return {"errors": 1.0}
    z = rng.standard_normal(2)
    return {
        "errors": 0.0,
        "abstention": float(u[1] < like.abstention),
        "citations": float(u[2] < like.citations),
        "first_token": like.first_token * float(np.exp(like.spread * z[0])),
        "length": like.length * float(np.exp(like.spread * z[1])),
    }


def feedback(rng: np.random.Generator, like: Behaviour) -> dict[str, float]:
    """What is said about one answer."""
    u = rng.random(3)
    vote = {"votes": float(u[1] < like.votes)} if u[0] < like.heard else {}
    return vote | ({"judge": float(rng.beta(5 * like.judge, 5 * (1 - like.judge)))} if u[2] < like.heard else {})


if __name__ == "__main__":
    main()
