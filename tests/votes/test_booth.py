"""What a voter is shown: blind, on sides by chance, resumable, with items shared among voters and looks at the voter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from llmbench.compare import Comparison
from llmbench.errors import DataError, LlmbenchError
from llmbench.votes import Booth, Plan, anonymous
from llmbench.votes.booth import NONSENSE
from llmbench.votes.store import VoteStore
from llmbench.votes.values import Ballot, Round

Make = Callable[..., Comparison]
NO_CHECKS = Plan(overlap=0.0, checks=0.0)


def shown(booth: Booth) -> Round:
    found = booth.next()
    assert found is not None
    return found


def ballots(booth: Booth) -> list[Ballot]:
    with VoteStore(booth.file) as store:
        return store.ballots()


def test_a_round_shows_both_answers_and_a_vote_names_the_model(compared: Make) -> None:
    compared()
    booth = Booth("kettles", "ada", NO_CHECKS)
    round = shown(booth)
    texts = dict(
        zip((round.item.a, round.item.b), (round.left, round.right)[:: 1 if round.left_is == "a" else -1], strict=True)
    )
    assert texts == {hash: booth.votable.texts[hash] for hash in texts}
    assert round.conversation[0][0] == "user"
    booth.cast(round, "left", reasons=["correct", "correct"], note=" why ")
    (one,) = ballots(booth)
    assert one.winner == ("model_a" if round.left_is == "a" else "model_b")
    assert (one.reasons, one.note, one.shown_left, one.voter) == (("correct",), "why", round.left_is, "ada")


def test_the_same_round_is_shown_until_it_is_voted_on(compared: Make) -> None:
    """So that nobody can look at the sides again by starting anew."""
    compared()
    first = shown(Booth("kettles", "ada"))
    assert all(shown(Booth("kettles", "ada")) == first for _ in range(3))
    assert shown(Booth("kettles", "bob")) != first


def test_sides_are_drawn_and_balance(compared: Make) -> None:
    compared()
    booth = Booth("kettles", "ada", NO_CHECKS)
    lefts = Counter[str]()
    for _ in range(72):
        round = shown(booth)
        lefts[round.left_is] += 1
        booth.cast(round, "tie")
    assert booth.next() is None
    assert 20 < lefts["a"] < 52
    assert len({one.item for one in ballots(booth)}) == 72


def test_undo_asks_for_the_same_answers_again_and_keeps_what_was_said(compared: Make) -> None:
    compared()
    booth = Booth("kettles", "ada", NO_CHECKS)
    booth.cast(shown(booth), "tie")
    second = shown(booth)
    booth.cast(second, "left")
    taken = booth.undo()
    assert taken is not None and taken.item == second.item
    assert shown(booth) == second
    booth.cast(second, "right")
    assert [one.undone is None for one in ballots(booth)] == [True, False, True]
    assert booth.progress().cast == 2


def test_voters_share_items_as_planned(compared: Make) -> None:
    compared()
    for voter in ("ada", "bob", "cy"):
        booth = Booth("kettles", voter, Plan(overlap=0.5, checks=0.0))
        for _ in range(20):
            booth.cast(shown(booth), "tie")
    shared = Counter(one.item for one in ballots(booth))
    assert 10 <= sum(count > 1 for count in shared.values()) <= 30
    assert max(shared.values()) <= 3


def test_without_overlap_every_item_has_a_vote_before_one_has_two(compared: Make) -> None:
    compared()
    for voter in ("ada", "bob"):
        booth = Booth("kettles", voter, NO_CHECKS)
        for _ in range(36):
            booth.cast(shown(booth), "tie")
    assert set(Counter(one.item for one in ballots(booth)).values()) == {1}


def test_checks_look_like_votes_and_are_not_counted(compared: Make) -> None:
    compared()
    booth = Booth("kettles", "ada", Plan(overlap=0.0, checks=0.5))
    kinds = Counter[str]()
    for _ in range(60):
        round = shown(booth)
        kinds[round.kind] += 1
        if round.kind == "same":
            assert round.left == round.right and round.item.model_a == round.item.model_b
            booth.cast(round, "tie")
        elif round.kind == "nonsense":
            assert sorted(round.left.split()) == sorted(round.right.split()) and round.left != round.right
            assert round.item.model_b == NONSENSE
            booth.cast(round, "left" if round.left_is == "a" else "right")
        else:
            booth.cast(round, "left")
    assert kinds["same"] > 5 and kinds["nonsense"] > 2
    assert sum(one.counts for one in ballots(booth)) == kinds["vote"]
    assert all(one.passed for one in ballots(booth) if one.kind != "vote")


def test_paced_answers_wait_for_the_slower_one_and_shown_ones_say_their_time(compared: Make) -> None:
    compared()
    assert shown(Booth("kettles", "ada")).wait == 0 and shown(Booth("kettles", "ada")).latencies is None
    paced = shown(Booth("kettles", "ada", Plan(latency="paced")))
    took = {"base": 0.5, "tuned": 1.25, "loud": 2.0}
    assert paced.wait == max(took[paced.item.model_a], took[paced.item.model_b])
    timed = shown(Booth("kettles", "ada", Plan(latency="shown")))
    times = (took[timed.item.model_a], took[timed.item.model_b])
    assert timed.latencies == (times if timed.left_is == "a" else times[::-1])


def test_a_comparison_that_was_made_anew_is_voted_on_anew(compared: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    compared(count=2)
    booth = Booth("kettles", "ada", NO_CHECKS)
    while (round := booth.next()) is not None:
        booth.cast(round, "left")
    new = replace(booth.votable.items[0], a="another answer")
    monkeypatch.setattr(booth, "votable", type(booth.votable)(**{**vars(booth.votable), "items": (new,)}))
    assert booth._left(ballots(booth)) == [new]


def test_answers_that_are_alike_are_not_asked_about(compared: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compared(count=3)
    rows = tuple(
        type(row)(row.question, type(row.answer)(**{**vars(row.answer), "text": "the same"}), row.scores) for row in made.rows
    )
    from llmbench.votes.items import votable

    with pytest.raises(DataError, match=r"kettles has nothing to vote on.*9 pairs are word for word the same"):
        votable(type(made)(**{**vars(made), "rows": rows}))


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "a\nb", "\x1b[31m"])
def test_names_that_cannot_be_shown_are_refused(compared: Make, name: str) -> None:
    compared()
    with pytest.raises(LlmbenchError, match="--rater"):
        Booth("kettles", name)


def test_who_gives_no_name_keeps_one_that_tells_nothing(compared: Make) -> None:
    compared()
    assert Booth("kettles").voter == anonymous() == anonymous()
    assert anonymous().startswith("anonymous-")


def test_a_choice_that_is_none_is_refused(compared: Make) -> None:
    compared()
    booth = Booth("kettles", "ada")
    with pytest.raises(LlmbenchError, match="'middle' is not a vote"):
        booth.cast(shown(booth), "middle")  # type: ignore[arg-type]
