"""Verdicts on guard-rails, and what a rollout decides by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from llmbench.gateway.traffic.assignment import arm_of
from llmbench.gateway.traffic.rollout import Decision, Rollout, RolloutPlan
from llmbench.gateway.traffic.verdict import Judge, Observed, mismatch, turnout
from llmbench.recipe import RAILS, Guardrails, RouteSpec


def plan(**more: Any) -> RolloutPlan:
    spec = {"name": "support", "variants": {"old": 1}, "rollout": {"plan": [5, 50, 100], "least": 20}} | more
    made = RouteSpec.model_validate(spec)
    return RolloutPlan.of(made, "new", made.variants, 1)


def observed(rails: list[str], *answers: tuple[int, dict[str, float]]) -> Observed:
    made = Observed(rails)
    for times, values in answers:
        for _ in range(times):
            made.add(values)
    return made


def feed(rollout: Rollout, units: int, of: dict[str, dict[str, float]], start: int = 0) -> list[Decision]:
    """Units that come one after another; what each variant's answers say. What was decided on the way."""
    found = []
    for number in range(start, start + units):
        arm = arm_of(rollout.plan.experiment, str(number), rollout.weights)
        rollout.add(arm, str(number), of[arm])
        if (decision := rollout.look()) is not None:
            found.append(decision)
    return found


GOOD = {"errors": 0.0, "length": 100.0}


def test_a_share_is_worse_beyond_its_margin_only() -> None:
    judge = Judge({"errors": 0.1}, 0.05)
    control = observed(["errors"], (380, {"errors": 0.0}), (20, {"errors": 1.0}))
    for bad, state in ((20, "not worse"), (68, "undecided"), (180, "worse")):
        canary = observed(["errors"], (400 - bad, {"errors": 0.0}), (bad, {"errors": 1.0}))
        assert judge.states(canary, control) == {"errors": state}
        assert judge.worse(canary, control) == (["errors"] if state == "worse" else [])
        verdict = judge.verdicts(canary, control)[0]
        assert (verdict.state, verdict.canary_n, verdict.control) == (state, 400, 0.05)
        assert verdict.low is not None and verdict.high is not None and verdict.difference is not None
        assert verdict.low <= verdict.difference <= verdict.high
        assert (verdict.low > 0.1) == (state == "worse") and (verdict.high <= 0.1) == (state == "not worse")


def test_a_median_is_worse_in_both_directions_and_a_percentile_in_one() -> None:
    rng = np.random.default_rng(0)
    judge = Judge({"length": 0.5, "first_token": 0.5}, 0.05)

    def lengths(times: float) -> Observed:
        values = times * 100 * rng.lognormal(sigma=0.3, size=300)
        return observed(["length", "first_token"], *((1, {"length": x, "first_token": x / 500}) for x in values))

    control = lengths(1)
    assert judge.states(lengths(1), control) == {"length": "not worse", "first_token": "not worse"}
    assert judge.states(lengths(3), control) == {"length": "worse", "first_token": "worse"}
    assert judge.states(lengths(1 / 3), control) == {"length": "worse", "first_token": "not worse"}
    verdict = judge.verdicts(lengths(3), control)[0]
    assert verdict.low is not None and verdict.low > 0.5
    assert verdict.canary == pytest.approx(300, rel=0.1) and verdict.difference == pytest.approx(2, rel=0.2)


def test_a_guard_rail_without_observations_says_so() -> None:
    judge = Judge({"errors": 0.1, "citations": 0.1}, 0.05)
    one = observed(["errors", "citations"], (300, {"errors": 0.0}))
    assert judge.states(one, one) == {"errors": "not worse", "citations": "no data"}
    assert judge.verdicts(one, one)[1].low is None


def test_the_alpha_is_shared_among_guard_rails_and_steps() -> None:
    rollout = Rollout(plan(guardrails={"seconds": 0.5}))
    assert rollout.judge.alpha == pytest.approx(0.05 / 6 / 2)


def test_what_is_no_worse_climbs_to_all_requests() -> None:
    rollout = Rollout(plan())
    decisions = feed(rollout, 3_000, {"old": GOOD, "new": GOOD})
    assert [(one.action, one.share) for one in decisions] == [("step", 50.0), ("promote", 100.0)]
    assert rollout.stand == "promoted" and rollout.weights == {"old": 0.0, "new": 100.0}
    assert all(verdict.state in ("not worse", "no data") for verdict in decisions[-1].evidence)


def test_what_is_worse_is_rolled_back_with_its_evidence() -> None:
    rollout = Rollout(plan())
    decisions = feed(rollout, 3_000, {"old": GOOD, "new": {"errors": 1.0}})
    assert [one.action for one in decisions] == ["roll back"] and decisions[0].units["new"] < 20
    assert "worse than old: errors" in decisions[0].reason
    assert rollout.weights == {"old": 100.0, "new": 0.0}
    assert decisions[0].evidence[0].canary == 1.0
    assert feed(rollout, 100, {"old": GOOD, "new": GOOD}, 3_000) == []


def test_a_required_guard_rail_without_observations_blocks_the_last_step() -> None:
    rollout = Rollout(plan(guardrails={"required": ["citations"]}))
    assert [one.action for one in feed(rollout, 2_500, {"old": GOOD, "new": GOOD})] == ["step"]
    assert rollout.waits_for(rollout.judge.states(rollout.canary, rollout.control)) == ["citations"]


def test_what_stays_undecided_ends_without_a_verdict_and_with_the_control() -> None:
    rollout = Rollout(plan(rollout={"plan": [50, 100], "least": 20, "most": 100}))
    bad = {"errors": 0.0, "abstention": 1.0}
    decisions = feed(rollout, 400, {"old": bad, "new": bad | {"length": 5.0}})
    assert [one.action for one in decisions] == ["inconclusive"] and rollout.weights["old"] == 100.0


def test_only_the_first_answer_of_a_unit_counts_in_a_step() -> None:
    rollout = Rollout(plan())
    assert rollout.add("new", "ann", GOOD) and not rollout.add("new", "ann", GOOD)
    assert rollout.add("old", "bob", GOOD) and not rollout.add("other", "eve", GOOD)
    assert rollout.units == {"new": 1, "old": 1}


def test_units_that_go_missing_pause_it_and_it_still_rolls_back() -> None:
    rollout = Rollout(plan(rollout={"plan": [50, 100], "least": 2_000}))
    decisions: list[Decision] = []
    for number in range(400):
        if number % 2 or number % 8 == 0:  # three of four answers of the canary are lost
            arm = "old" if number % 2 else "new"
            rollout.add(arm, str(number), GOOD)
            rollout.settle(arm)
            decisions += [one for one in [rollout.look()] if one is not None]
    assert [one.action for one in decisions] == ["pause"] and "sample-ratio mismatch" in decisions[0].reason
    assert rollout.stand == "paused" and rollout.share == 50.0
    assert "sample-ratio mismatch" in rollout.resume().reason
    assert rollout.look() is None and rollout.weights == {"old": 50.0, "new": 50.0}
    rollout.pause("by hand")
    for number in range(500, 560):
        rollout.add("new", str(number), {"errors": 1.0})
    decision = rollout.look()
    assert decision is not None and decision.action == "roll back"


@pytest.mark.parametrize(("canary", "control", "found"), [(50, 50, False), (80, 20, True), (0, 100, True), (3, 3, False)])
def test_a_ratio_of_units_is_held_against_the_share(canary: int, control: int, found: bool) -> None:
    assert (mismatch(canary, control, 50.0) is not None) is found


@pytest.mark.parametrize(("rail", "good", "bad", "near"), [("votes", 1.0, 0.0, 140), ("judge", 0.75, 0.25, 220)])
def test_less_of_a_mean_is_worse_beyond_its_margin_and_more_never_is(rail: str, good: float, bad: float, near: int) -> None:
    judge = Judge({rail: 0.2}, 0.05)
    control = observed([rail], (340, {rail: good}), (60, {rail: bad}))
    for worse, state in ((60, "not worse"), (10, "not worse"), (near, "undecided"), (390, "worse")):
        canary = observed([rail], (400 - worse, {rail: good}), (worse, {rail: bad}))
        assert judge.states(canary, control) == {rail: state}
        assert judge.worse(canary, control) == ([rail] if state == "worse" else [])
        verdict = judge.verdicts(canary, control)[0]
        assert verdict.canary == pytest.approx(good - (good - bad) * worse / 400)
        assert verdict.low is not None and verdict.high is not None and verdict.difference is not None
        assert verdict.low <= verdict.difference <= verdict.high
        assert (verdict.high < -0.2) == (state == "worse") and (verdict.low >= -0.2) == (state == "not worse")


def test_a_vote_counts_once_a_unit_and_for_units_of_the_step_alone() -> None:
    rollout = Rollout(plan(guardrails={"votes": 0.1}))
    rollout.add("new", "ann", GOOD)
    rollout.add("old", "bob", GOOD)
    assert rollout.learn("new", "ann", "votes", 0.0) and not rollout.learn("new", "ann", "votes", 1.0)
    assert not rollout.learn("new", "eve", "votes", 1.0) and not rollout.learn("other", "bob", "votes", 1.0)
    assert not rollout.learn("old", "bob", "judge", 1.0)  # the plan has no margin for it
    assert rollout.units == {"new": 1, "old": 1} and rollout.canary.counts["votes"] == (0.0, 1)
    rollout.abort("not now")
    assert not rollout.learn("old", "bob", "votes", 1.0)


@pytest.mark.parametrize("rail", ["votes", "judge"])
def test_a_margin_for_votes_or_scores_waits_for_some(rail: str) -> None:
    rollout = Rollout(plan(guardrails={rail: 0.3, "errors": 0.1}))
    assert [one.action for one in feed(rollout, 900, {"old": GOOD, "new": GOOD})] == ["step"]
    assert rollout.waits_for(rollout.judge.states(rollout.canary, rollout.control)) == [rail]
    for number in range(900):
        rollout.learn(arm_of(rollout.plan.experiment, str(number), rollout.weights), str(number), rail, float(number % 5 > 0))
    decision = rollout.look()
    assert decision is not None and decision.action == "promote"
    assert {one.rail: one.state for one in decision.evidence}[rail] == "not worse"


def test_votes_that_turn_down_roll_back_what_is_otherwise_as_good() -> None:
    rollout, rng, decision, number = Rollout(plan(guardrails={"votes": 0.05})), np.random.default_rng(3), None, 0
    while decision is None or decision.action == "step":
        number += 1
        arm = arm_of(rollout.plan.experiment, str(number), rollout.weights)
        rollout.add(arm, str(number), GOOD)
        if number % 3 == 0:
            rollout.learn(arm, str(number), "votes", float(rng.random() < (0.5 if arm == "new" else 0.9)))
        decision = rollout.look()
    assert decision.reason == "worse than old: votes" and rollout.weights == {"old": 100.0, "new": 0.0}
    verdict = {one.rail: one for one in decision.evidence}["votes"]
    assert verdict.canary is not None and verdict.canary < 0.7 and verdict.canary_n < decision.units["new"]


def test_another_share_of_voters_is_told_with_its_bounds() -> None:
    assert turnout((30, 300), (30, 300), 0.01) is None and turnout((0, 0), (5, 9), 0.01) is None
    found = turnout((90, 300), (30, 300), 0.01)
    assert found is not None and 0 < found.low < 0.2 < found.high < 0.4
    rollout = Rollout(plan(guardrails={"votes": 0.1}))
    for number in range(600):
        arm = "new" if number % 2 else "old"
        rollout.add(arm, str(number), GOOD)
        if number % (4 if arm == "new" else 20) < 2:
            rollout.learn(arm, str(number), "votes", 1.0)
    (told,) = rollout.turnouts([asdict(one) for one in rollout.verdicts()], rollout.units)
    assert (told["rail"], told["canary"], told["control"]) == ("votes", 0.5, 0.1)
    assert 0.2 < told["differs"]["low"] < 0.4 < told["differs"]["high"] < 0.6
    assert rollout.stand == "running"


@pytest.mark.parametrize(
    ("rail", "draw"),
    [
        ("votes", lambda rng: float(rng.random() < 0.8)),
        ("judge", lambda rng: float(rng.beta(4, 1))),
        ("judge", lambda rng: float(rng.integers(0, 11)) / 10),
    ],
)
def test_a_variant_that_is_as_good_is_rarely_found_worse_by_votes_or_scores(
    rail: str, draw: Callable[[np.random.Generator], float]
) -> None:
    """400 runs with a margin of 0, each looked at after every vote: 5 % are allowed, and 20 runs."""
    judge, found = Judge({rail: 0.0}, 0.05), 0
    for run in range(400):
        rng, sides = np.random.default_rng([5, run]), (Observed([rail]), Observed([rail]))
        for number in range(120):
            sides[number % 2].add({rail: draw(rng)})
            if judge.worse(*sides):
                found += 1
                break
    assert found <= 20


def test_a_hundred_canaries_of_the_same_variant_are_rarely_rolled_back() -> None:
    """Looked at after every unit, with margins of 0; by the benchmark it is fewer than one in a hundred."""
    rng = np.random.default_rng(11)
    margins = {"errors": 0.0, "first_token": 0.0, "length": 0.0, "abstention": 0.0, "citations": 0.0}
    rolled_back = 0
    for _ in range(100):
        rollout = Rollout(plan(guardrails=margins, rollout={"plan": [50, 100]}))
        for number in range(100):
            answer = {"errors": float(rng.random() < 0.1), "length": rng.lognormal(), "abstention": float(rng.random() < 0.3)}
            rollout.add("new" if number % 2 else "old", str(number), answer)
            rollout.look()
        rolled_back += rollout.stand == "rolled back"
    assert rolled_back <= 5


def test_a_canary_that_has_requests_already_takes_them_from_nobody() -> None:
    spec = RouteSpec(name="r", variants={"old": 80, "new": 20})
    made = RolloutPlan.of(spec, "new", spec.variants, 4)
    assert (made.steps, made.experiment, made.document) == ((25.0, 50.0), "r", {"old": 80.0, "new": 20.0})
    rollout = Rollout(made)
    rollout.abort("not now")
    assert rollout.weights == {"old": 80.0, "new": 20.0}


@pytest.mark.parametrize(
    ("weights", "said"), [({"new": 1.0}, "answers all of r already"), ({"a": 1.0, "b": 1.0, "new": 1.0}, "among a and b")]
)
def test_a_rollout_needs_one_control(weights: dict[str, float], said: str) -> None:
    spec = RouteSpec(name="r", variants=weights)
    with pytest.raises(ValueError, match=said):
        RolloutPlan.of(spec, "new", spec.variants, 1)


def test_a_plan_s_hash_changes_with_anything_of_it() -> None:
    hashes = {plan().hash, plan(rollout={"plan": [5, 100]}).hash, plan(guardrails={"errors": 0.03}).hash}
    assert len(hashes) == 3 and plan().hash == plan().hash


def test_every_guard_rail_of_the_table_has_a_margin_and_every_margin_a_place_in_it() -> None:
    assert [name for name in Guardrails.model_fields if name not in ("required", "phrase")] == [*RAILS]
    assert Guardrails(seconds=0.25, votes=0.1, judge=0.1).margins.keys() == RAILS.keys()
    assert len({rail.label for rail in RAILS.values()}) == len(RAILS)
