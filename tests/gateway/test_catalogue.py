"""The table that requests are answered from, which is replaced whole."""

from __future__ import annotations

import threading

import pytest

from llmbench.gateway.catalogue import Catalogue, Offer, Served
from llmbench.recipe import Variant


def served(name: str, model: str = "base") -> Served:
    return Served(Variant(name=name), model, {"description": model}, created=7)


def test_a_request_counts_as_its_variant_s_until_it_ends() -> None:
    catalogue = Catalogue([served("a")], context=64)
    first, second = catalogue.take("a"), catalogue.take("a")
    assert first is second is catalogue.now.known["a"]
    assert first is not None and first.requests.running == 2
    assert catalogue.take("b") is None


def test_an_offer_that_somebody_holds_does_not_change() -> None:
    catalogue = Catalogue([served("a")], context=64)
    before = catalogue.now
    assert catalogue.put(served("b")) is None
    old = catalogue.put(served("a", "x"))
    assert old is before.known["a"]
    assert (list(before.known), list(catalogue.now.known)) == (["a"], ["a", "b"])
    assert catalogue.now.cards["a"] == {
        "id": "a", "object": "model", "created": 7, "owned_by": "llmbench", "kind": "chat", "max_model_len": 64,
        "description": "x",
    }  # fmt: skip
    assert catalogue.drop("a").engine_name == "x"
    assert list(catalogue.now.known) == ["b"]
    with pytest.raises(KeyError):
        catalogue.drop("a")


def test_a_request_that_looks_a_variant_up_while_it_is_replaced_gets_the_new_one() -> None:
    class Swapped(dict[str, Served]):
        """Known variants, of which one is replaced between the look-up and the count."""

        def get(self, name: str, default: Served | None = None) -> Served | None:  # type: ignore[override]
            catalogue.now = after
            return super().get(name, default)

    old, new = served("a", "old"), served("a", "new")
    catalogue = Catalogue([new], context=64)
    after = catalogue.now
    catalogue.now = Offer(Swapped(a=old), {})
    assert catalogue.take("a") is new
    assert (old.requests.running, new.requests.running) == (0, 1)


def test_threads_that_look_up_and_swap_leave_no_count_behind() -> None:
    catalogue, done = Catalogue([served("a", "0")], context=64), threading.Event()

    def ask() -> None:
        while not done.is_set():
            taken = catalogue.take("a")
            assert taken is not None
            taken.requests.running -= 1

    asking = threading.Thread(target=ask)
    asking.start()
    replaced = [catalogue.put(served("a", str(number))) for number in range(2000)]
    done.set()
    asking.join()
    assert [one.requests.running for one in replaced if one is not None] == [0] * 2000
