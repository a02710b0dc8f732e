"""Bradley and Terry's model with ties: against another maximiser and other libraries, and what must be told."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
from scipy import optimize

from llmbench.statistics.davidson import informations
from llmbench.statistics.rating import gains, rate
from llmbench.statistics.ratings import PairVote, Rating, points

TRUE = {"a": 0.8, "b": 0.2, "c": -0.2, "d": -0.8}


def drawn(
    count: int,
    *,
    strengths: Mapping[str, float] = TRUE,
    side: float = 0.0,
    tie: float | None = -0.3,
    voters: int = 20,
    seed: int = 0,
    swap: bool = True,
) -> list[PairVote]:
    """Votes by the model itself."""
    rng, made = np.random.default_rng(seed), []
    for i in range(count):
        left, right = (str(one) for one in rng.choice(list(strengths), 2, replace=False))
        if not swap and left > right:
            left, right = right, left
        eta = strengths[left] - strengths[right] + side
        odds = np.exp([eta / 2, -eta / 2, -math.inf if tie is None else tie])
        outcome = int(rng.choice([1, -1, 0], p=odds / odds.sum()))
        made.append(PairVote(left, right, outcome, f"v{i % voters}", f"q{i}"))
    return made


def _won(i: int, voter: str, question: str) -> PairVote:
    """A vote that a wins, on sides in turn."""
    return PairVote("a", "b", 1, voter, question) if i % 2 else PairVote("b", "a", -1, voter, question)


def of(rating: Rating, model: str) -> float:
    return next(one.value for one in rating.strengths if one.model == model)


def test_the_maximum_is_that_of_a_general_maximiser() -> None:
    votes = drawn(300, side=0.4)
    found = rate(votes)

    def minus(x: np.ndarray) -> float:
        strength = dict(zip("abcd", [*x[:3], -x[:3].sum()], strict=True))
        total = 0.0
        for one in votes:
            eta = strength[one.left] - strength[one.right] + x[3]
            logs = {1: eta / 2, -1: -eta / 2, 0: x[4]}
            total -= logs[one.outcome] - np.logaddexp.reduce(list(logs.values()))
        return total

    best = optimize.minimize(minus, np.zeros(5), method="BFGS", options={"gtol": 1e-7})
    assert [of(found, model) for model in "abc"] == pytest.approx(best.x[:3], abs=1e-5)
    assert found.effects["left"].value == pytest.approx(best.x[3], abs=1e-5)
    assert found.log == pytest.approx(-best.fun, abs=1e-7)
    assert found.tie == pytest.approx(math.exp(best.x[4]) / (2 + math.exp(best.x[4])), abs=1e-5)


def test_the_information_is_the_second_derivative() -> None:
    from llmbench.statistics import davidson, rating

    votes = [
        PairVote(one.left, one.right, one.outcome, one.voter, one.question, styles=(math.sin(7 * i),))
        for i, one in enumerate(drawn(60))
    ]
    cast, names = rating._cast(votes, list("abcd"), ["length"])
    assert names == ("left", "length")
    b = np.array([0.3, -0.1, 0.2, -0.4, 0.2, -0.5, 0.1])
    groups = np.arange(60) % 3

    def gradient(at: np.ndarray) -> np.ndarray:
        return davidson.scores(cast, at, groups, 3)

    by_hand = np.stack([-(gradient(b + e) - gradient(b - e)) / 2e-5 for e in np.eye(7) * 1e-5], axis=2)
    assert informations(cast, b, groups, 3) == pytest.approx(by_hand, abs=1e-6)


def test_a_side_that_is_modelled_biases_nothing() -> None:
    found = rate(drawn(6000, side=0.4, tie=None), by=())
    assert abs(found.effects["left"].value - 0.4) < 3 * 0.03
    for model, true in TRUE.items():
        assert abs(of(found, model) - true) < 0.12


def test_sides_that_were_never_swapped_are_told_and_left_out() -> None:
    found = rate(drawn(200, swap=False, strengths={"a": 0.3, "b": -0.3}), by=())
    assert (found.untold, dict(found.effects)) == (("left",), {})


def test_a_style_that_a_model_always_has_is_told_and_left_out() -> None:
    votes = [
        PairVote(one.left, one.right, one.outcome, one.voter, one.question, styles=((one.left == "a") - (one.right == "a"),))
        for one in drawn(100)
    ]
    assert rate(votes, styles=["bold"], by=()).untold == ("bold",)


def test_length_held_equal_takes_away_what_length_alone_has_won() -> None:
    """The model `long` is no better, but votes like what is longer; its answers are longer in most pairs."""
    rng, votes = np.random.default_rng(3), []
    for i in range(3000):
        longer = float(np.clip(rng.normal(0.4, 0.5), -1, 1))
        swap = rng.random() < 0.5
        x = -longer if swap else longer
        outcome = 1 if rng.random() < 1 / (1 + math.exp(-1.5 * x)) else -1
        left, right = ("short", "long") if swap else ("long", "short")
        votes.append(PairVote(left, right, outcome, "v", f"q{i}", styles=(x,)))
    plain, held = rate(votes, by=()), rate(votes, styles=["length"], by=())
    assert plain.leads[0].a == "long" and plain.leads[0].p < 1e-6
    assert abs(held.leads[0].value) < 0.25
    assert held.effects["length"].low < 1.5 < held.effects["length"].high


def test_a_lead_without_a_loss_has_no_upper_end() -> None:
    votes = [_won(i, "v", f"q{i}") for i in range(30)]
    found = rate(votes)
    lead = found.leads[0]
    assert (found.separated, found.finite, found.strengths, lead.a) == (True, False, (), "a")
    assert math.isinf(lead.high) and lead.p < 1e-6
    # 30 of 30: the likelihood ratio's lower end of a share is exp(-1.96^2 / (2 * 30)).
    assert lead.share[1] == pytest.approx(math.exp(-(1.959964**2) / 60), abs=2e-3)
    assert found.to_json()["leads"][0]["high"] is None


def test_few_unanimous_votes_show_nothing() -> None:
    votes = [_won(i, "v", f"q{i}") for i in range(2)]
    assert rate(votes).leads[0].p_holm > 0.05


def test_unanimous_votes_of_a_few_voters_count_less() -> None:
    votes = [_won(i, f"v{i % 6}", f"q{i}") for i in range(60)]
    alone, together = rate(votes, by=()).leads[0], rate(votes, by=("voter",)).leads[0]
    assert 0 < together.low < alone.low


def test_models_that_no_vote_joins_are_told() -> None:
    votes = [*drawn(100), PairVote("x", "y", 1, "v", "q"), PairVote("y", "x", 1, "v", "r")]
    found = rate(votes)
    assert (found.apart, len(found.strengths), found.votes) == (("x", "y"), 4, 100)


def test_every_vote_for_one_side_says_nothing_of_models() -> None:
    votes = [PairVote(one.left, one.right, 1, one.voter, one.question) for one in drawn(100)]
    found = rate(votes)
    assert found.untold == ("left",) and found.finite
    assert all(lead.p_holm > 0.05 for lead in found.leads)


def test_ranks_and_chances_of_being_best_follow_the_leads() -> None:
    found = rate(drawn(3000), by=())
    assert [one.model for one in found.strengths] == list("abcd") == list(found.order)
    assert [(one.rank_low, one.rank_high) for one in found.strengths] == [(i, i) for i in range(1, 5)]
    assert found.strengths[0].best > 0.99
    few = rate(drawn(12), by=())
    assert few.strengths[0].rank_low == 1 and few.strengths[-1].rank_high == 4


def test_voters_with_tastes_widen_intervals() -> None:
    """Of twenty voters each likes one of the two always; 13 of them the same."""
    votes = [
        PairVote(one.left, one.right, 1 if (one.left == "a") == (i // 20 < 13) else -1, f"v{i // 20}", one.question)
        for i, one in enumerate(drawn(400, strengths={"a": 0.0, "b": 0.0}))
    ]
    by_voter, alone = rate(votes, by=("voter",)), rate(votes, by=())
    assert by_voter.degrees == pytest.approx(19) and by_voter.clustered == ("voter",)
    assert by_voter.leads[0].error > 4 * alone.leads[0].error
    assert by_voter.leads[0].p_holm > 0.05 > alone.leads[0].p_holm


def test_draws_of_voters_give_intervals_like_the_closed_form() -> None:
    votes = drawn(600, voters=30)
    closed, by_draws = rate(votes, by=("voter",)), rate(votes, by=("voter",), bootstrap=150)
    assert by_draws.bootstrap == 150
    for one, other in zip(closed.strengths, by_draws.strengths, strict=True):
        assert (other.high - other.low) == pytest.approx(one.high - one.low, rel=0.3)


def test_more_votes_are_asked_for_where_nothing_is_shown() -> None:
    votes = drawn(60, strengths={"a": 0.2, "b": -0.2})
    lead = rate(votes, by=()).leads[0]
    assert lead.p_holm > 0.05 and lead.low <= 0 <= lead.high
    assert lead.more is not None and lead.more > 60
    assert rate(drawn(4000, strengths={"a": 0.2, "b": -0.2}), by=()).leads[0].more == 0


def test_the_next_vote_goes_where_the_order_is_least_known() -> None:
    votes = drawn(600, strengths={"a": 0.1, "b": 0.05, "c": -2.0})
    told = gains(votes, ["a", "b", "c"])
    assert max(told, key=lambda pair: told[pair]) == ("a", "b")
    assert all(0 <= one <= 1 for one in told.values())


def test_without_votes_every_pair_is_as_good() -> None:
    told = gains([], ["a", "b", "c"])
    assert max(told.values()) > 0


def test_chosen_pairs_narrow_the_deciding_interval_faster_than_pairs_by_chance() -> None:
    """Two near the top and four far below: the same number of votes, chosen or not."""
    strengths = {"a": 0.5, "b": 0.3, "c": -0.8, "d": -1.0, "e": -1.2, "f": -1.4}

    def error(choose: bool) -> float:
        rng = np.random.default_rng(5)
        votes: list[PairVote] = []
        pairs = [(one, other) for one in strengths for other in strengths if one < other]
        for i in range(240):
            if choose and i % 6 == 0:
                told = gains(votes, list(strengths))
                pairs = [max(told, key=lambda one: told[one])]
            pair = pairs[rng.integers(len(pairs))]
            left, right = pair if rng.random() < 0.5 else pair[::-1]
            eta = strengths[left] - strengths[right]
            votes.append(PairVote(left, right, 1 if rng.random() < 1 / (1 + math.exp(-eta)) else -1, "v", f"q{i}"))
        lead = rate(votes, by=()).lead("a", "b")
        assert lead is not None
        return lead.error

    assert error(True) < 0.75 * error(False)


def test_the_scale_of_points_is_that_of_elo() -> None:
    assert points(0) == 1000 and points(math.log(10)) == pytest.approx(1400)


def test_no_votes_are_an_error() -> None:
    with pytest.raises(ValueError, match="no votes"):
        rate([])


WINS = {
    "ab": 13, "ba": 7, "ac": 16, "ca": 5, "bc": 9, "cb": 8, "cd": 11, "dc": 6, "ad": 14, "da": 3, "bd": 6, "db": 5,
}  # fmt: skip
"""Winner and loser -> votes; what other libraries make of them was recorded with the calls named below."""


def recorded(sided: bool) -> list[PairVote]:
    """Every second winner stood on the left; seven voters in turn."""
    wins = [pair for pair, count in WINS.items() for _ in range(count)]
    return [
        PairVote(winner[i % 2], winner[1 - i % 2], 1 if i % 2 == 0 else -1, f"v{i % 7}", f"q{i}", sided)
        for i, winner in enumerate(wins)
    ]


def test_strengths_are_those_of_choix_and_evalica() -> None:
    """choix 0.4.1 opt_pairwise(alpha=0) and evalica 0.4.2 bradley_terry(tolerance=1e-13), logs about their mean."""
    found = rate(recorded(False), by=())
    assert [of(found, model) for model in "abcd"] == pytest.approx([0.813910, -0.042425, -0.168720, -0.602766], abs=2e-6)


def test_strengths_side_and_clustered_errors_are_those_of_statsmodels() -> None:
    """statsmodels 0.15.0 Logit, cov_type="cluster", use_correction=False, with a column of ones for the side."""
    from llmbench.statistics import davidson, rating, sandwich

    votes = recorded(True)
    found = rate(votes, by=())
    assert [of(found, model) for model in "abcd"] == pytest.approx([0.813819, -0.042210, -0.168872, -0.602737], abs=2e-6)
    assert found.effects["left"].value == pytest.approx(0.003688, abs=2e-6)
    assert found.log == pytest.approx(-63.225927, abs=2e-6)
    cast, _ = rating._cast(votes, list("abcd"), ())
    fitted = davidson.fit(cast)
    groups = sandwich.grouped([one.voter for one in votes])
    sums = davidson.scores(cast, fitted.b, groups.of, 7)
    held = fitted.information.copy()
    held[:4, :4] += 1.0
    covariance = np.linalg.inv(held) @ (sums.T @ sums) @ np.linalg.inv(held)
    assert math.sqrt(covariance[0, 0] + covariance[3, 3] - 2 * covariance[0, 3]) == pytest.approx(0.103633, abs=2e-6)
    assert math.sqrt(covariance[4, 4]) == pytest.approx(0.093795, abs=2e-6)


@pytest.mark.parametrize(("voters", "by"), [(6, ("voter",)), (20, ("voter", "question"))])
def test_intervals_of_voters_with_tastes_cover(voters: int, by: tuple[str, ...]) -> None:
    """A small seeded version of benchmarks/ratings.py: two models, tastes of 0.7 logits a model, 240 votes."""
    rng, held = np.random.default_rng(11), 0
    # The mean of the taste differences is 0, and so is what the votes of very many voters would give.
    for _ in range(80):
        tastes = rng.normal(0, 0.7 * math.sqrt(2), voters)
        votes = []
        for i in range(240):
            taste, turned = tastes[i % voters], rng.random() < 0.5
            eta = (-taste if turned else taste) + 0.4
            outcome = 1 if rng.random() < 1 / (1 + math.exp(-eta)) else -1
            votes.append(PairVote("ab"[turned], "ba"[turned], outcome, f"v{i % voters}", f"q{i // 3}"))
        held += rate(votes, by=by).leads[0].p >= 0.05
    assert held >= 0.889 * 80  # 95 % less two and a half standard errors
