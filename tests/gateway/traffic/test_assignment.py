"""Which variant a unit belongs to: in the shares that were asked for, stable when they change, independent elsewhere."""

from __future__ import annotations

import pytest
from scipy import stats

from llmbench.gateway.traffic.assignment import arm_of, opening_of, unit_of
from llmbench.message import Message

UNITS = [unit_of("user", user=f"user {i}", key="", opening=None, request="") for i in range(20_000)]


def test_each_variant_gets_its_share() -> None:
    weights = {"a": 70.0, "b": 20.0, "c": 10.0, "d": 0.0}
    arms = [arm_of("route", unit, weights) for unit in UNITS]
    counts = [arms.count(arm) for arm in "abc"]
    assert arms.count("d") == 0 and sum(counts) == len(UNITS)
    assert stats.chisquare(counts, [len(UNITS) * share for share in (0.7, 0.2, 0.1)]).pvalue > 0.001


def test_a_share_that_grows_moves_nobody_but_to_it() -> None:
    before = [arm_of("route", unit, {"control": 99.0, "canary": 1.0}) for unit in UNITS]
    for share in (5.0, 25.0, 50.0, 100.0):
        after = [arm_of("route", unit, {"control": 100 - share, "canary": share}) for unit in UNITS]
        assert all(new == "canary" for old, new in zip(before, after, strict=True) if old == "canary")
        before = after
    assert set(before) == {"canary"}


def test_among_three_a_change_of_one_moves_none_between_the_others() -> None:
    before = [arm_of("route", unit, {"a": 50.0, "b": 40.0, "c": 10.0}) for unit in UNITS]
    after = [arm_of("route", unit, {"c": 60.0, "b": 40.0, "a": 50.0}) for unit in UNITS]
    moved = {(old, new) for old, new in zip(before, after, strict=True) if old != new}
    assert moved == {("a", "c"), ("b", "c")}


def test_experiments_are_independent_of_each_other() -> None:
    weights = {"a": 50.0, "b": 50.0}
    pairs = [(arm_of("one", unit, weights), arm_of("two", unit, weights)) for unit in UNITS]
    table = [[pairs.count((x, y)) for y in "ab"] for x in "ab"]
    assert stats.chi2_contingency(table).pvalue > 0.001


@pytest.mark.parametrize(
    ("sticky", "user", "key", "opening", "same"),
    [
        ("user", "ann", "bot", "Hi", True),
        ("user", None, "bot", "Hi", True),
        ("user", None, "", "Hi", True),
        ("conversation", "ann", "bot", "Hi", True),
        ("user", None, "", None, False),
        ("none", "ann", "bot", "Hi", False),
    ],
)
def test_a_unit_stays_what_it_is_from_request_to_request(
    sticky: str, user: str | None, key: str, opening: str | None, same: bool
) -> None:
    one, two = (unit_of(sticky, user=user, key=key, opening=opening, request=id) for id in ("1", "2"))  # type: ignore[arg-type]
    assert (one == two) is same
    assert len(one) == 16 and "ann" not in one


def test_a_user_and_a_key_of_one_name_are_two_units() -> None:
    user = unit_of("user", user="ann", key="", opening=None, request="1")
    assert user != unit_of("user", user=None, key="ann", opening=None, request="1")


def test_a_conversation_is_the_same_while_it_goes_on() -> None:
    begun: list[Message] = [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Hi"}]
    later: list[Message] = [*begun, {"role": "assistant", "content": "Hello"}, {"role": "user", "content": "And?"}]
    assert opening_of(begun) == opening_of(later)
    assert opening_of(begun) != opening_of([begun[0], later[-1]])
