"""Adding, removing and reloading variants, over an engine that notes what it is asked; the real one is in test_variants.py."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from tests.gateway.conftest import Bench

from llmbench.engine import BASE, Adapter
from llmbench.errors import EngineError, LlmbenchError
from llmbench.parity import Parity
from llmbench.recipe import Variant


def names(bench: Bench) -> list[str]:
    return list(bench.catalogue.now.known)


def test_an_adapter_is_loaded_and_proven_before_its_variant_is_offered(bench: Bench) -> None:
    seen: list[list[str]] = []
    prove = bench.engine.prove

    def watched(adapter: Adapter) -> Parity | None:
        seen.append(names(bench))
        return prove(adapter)

    bench.engine.prove = watched  # type: ignore[method-assign]
    served = bench.deployment.add(Variant(name="mine", adapter="run-2", system="Brief."))
    assert bench.engine.calls == ["load a2", "prove a2"]
    assert seen == [["base", "first"]]
    assert (served.engine_name, served.card["parity"], served.variant.system) == ("a2", "proven", "Brief.")
    assert names(bench) == ["base", "first", "mine"]
    assert bench.way.allowed[-1] == "a2"


def test_variants_of_one_adapter_share_it_and_its_verdict(bench: Bench) -> None:
    bench.deployment.add(Variant(name="also", adapter="run-1"))
    assert bench.engine.calls == []
    assert bench.served("also").card["parity"] == "proven"
    bench.deployment.remove("first")
    assert bench.engine.calls == []
    bench.deployment.remove("also")
    assert bench.engine.calls == ["unload a1"]


def wrong(bench: Bench, how: str) -> Variant:
    match how:
        case "a name that is taken":
            return Variant(name="first", adapter="run-2")
        case "no such adapter":
            return Variant(name="mine", adapter="nobody")
        case "a rank above the engine's":
            bench.store.ranks["run-2"] = 32
        case "no certificate":
            bench.store.uncertified.add("run-2")
        case "one that vLLM does not take":
            bench.engine.refused.add("run-2")
        case "not as it was trained":
            bench.engine.differing.add("run-2")
        case "an index that is not built":
            return Variant.model_construct(name="mine", adapter="run-2", rag=Path("/pages/broken.yaml"))
    return Variant.model_construct(name="mine", adapter="run-2", rag=Path("/pages/pages.yaml"))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("a name that is taken", "first is served already"),
        ("no such adapter", "neither a folder nor a run"),
        ("a rank above the engine's", "has rank 32"),
        ("no certificate", "has no certificate"),
        ("one that vLLM does not take", "vLLM does not load adapter run-2"),
        ("not as it was trained", "it is told. Retrain"),
        ("an index that is not built", "not built"),
    ],
)
def test_an_addition_that_fails_leaves_everything_as_it_was(bench: Bench, how: str, said: str) -> None:
    before, variant = bench.state(), wrong(bench, how)
    with pytest.raises(LlmbenchError, match=said):
        bench.deployment.add(variant)
    assert bench.state() == before
    assert all(grounder.closed for grounder in bench.opened.values())


def test_what_parity_warn_lets_pass_is_told() -> None:
    bench = Bench(parity="warn")
    bench.store.uncertified.add("run-2")
    bench.engine.differing.add("run-3")
    bench.deployment.add(Variant(name="bare", adapter="run-2"))
    bench.deployment.add(Variant(name="off", adapter="run-3"))
    assert any("Not proven: adapter run-2 has no certificate" in line for line in bench.said)
    assert any("Not as trained: adapter run-3" in line for line in bench.said)
    assert bench.served("off").card["parity"] == "differs"


def test_without_parity_nothing_is_asked() -> None:
    bench = Bench(parity="off")
    bench.deployment.add(Variant(name="mine", adapter="run-2"))
    assert bench.engine.calls == ["load a2"]


def test_a_removed_variant_is_gone_at_once_and_its_adapter_when_the_last_answer_has_ended(bench: Bench) -> None:
    served = bench.answers(bench.served("first"), 2)
    removing = threading.Thread(target=bench.deployment.remove, args=("first",), kwargs={"drain": 60.0})
    removing.start()
    while [row["state"] for row in bench.deployment.listing()] != ["ready", "draining"]:
        pass
    assert bench.catalogue.take("first") is None
    assert bench.engine.calls == []
    served.requests.running = 0
    removing.join(30)
    assert bench.engine.calls == ["unload a1"] and bench.way.cuts == []
    assert [row["name"] for row in bench.deployment.listing()] == ["base"]


def test_answers_that_take_longer_are_cut_off_before_the_adapter_goes(bench: Bench) -> None:
    bench.answers(bench.served("first"), 2)
    assert bench.deployment.remove("first", drain=0.0) == 2
    assert (bench.way.cuts, bench.engine.calls) == (["a1"], ["unload a1"])
    assert any("Cutting off 2 answers of first" in line for line in bench.said)


def test_answers_of_the_base_are_not_waited_for_and_not_cut(bench: Bench) -> None:
    bench.answers(bench.served("base"), 1)
    assert bench.deployment.remove("base", drain=3600.0) == 0
    assert bench.way.cuts == [] and bench.engine.calls == []


def test_the_last_variant_and_one_that_is_not_there_cannot_be_removed(bench: Bench) -> None:
    with pytest.raises(LlmbenchError, match=r"There is no variant nobody\. Available: base, first"):
        bench.deployment.remove("nobody")
    bench.deployment.remove("base")
    with pytest.raises(LlmbenchError, match="first is the only variant"):
        bench.deployment.remove("first")
    assert names(bench) == ["first"]


def test_a_pipeline_is_opened_once_and_closed_with_its_last_variant(bench: Bench, tmp_path: Path) -> None:
    rag = tmp_path / "pages.yaml"
    rag.write_text("name: pages\ndocuments: [pages.yaml]\n")
    for name in ("a", "b"):
        bench.deployment.add(Variant(name=name, rag=rag))
    grounder = bench.opened["pages"]
    assert bench.served("a").grounding is bench.served("b").grounding
    bench.deployment.remove("a")
    assert not grounder.closed
    bench.deployment.remove("b")
    assert grounder.closed


def test_answers_of_a_variant_that_went_before_are_waited_for_with_the_last_one_of_their_adapter(bench: Bench) -> None:
    bench.deployment.add(Variant(name="also", adapter="run-1"))
    first = bench.answers(bench.served("first"), 1)
    assert bench.deployment.remove("first") == 0
    assert [(row["name"], row["state"]) for row in bench.deployment.listing()][-1] == ("first", "draining")
    assert bench.deployment.remove("also", drain=0.0) == 1
    assert first.requests.running == 0 and bench.way.cuts == ["a1"] and bench.engine.calls == ["unload a1"]
    assert [row["name"] for row in bench.deployment.listing()] == ["base"]


def test_an_adapter_that_is_not_unloaded_is_told_and_can_be_used_again(bench: Bench) -> None:
    unload = bench.engine.unload

    def fails(id: str) -> None:
        unload(id)
        raise EngineError("it does not answer")

    bench.engine.unload = fails  # type: ignore[method-assign]
    bench.deployment.remove("first")
    assert "Adapter a1 was not unloaded: it does not answer" in bench.said
    bench.deployment.add(Variant(name="back", adapter="run-1"))
    assert bench.engine.calls == ["unload a1", "load a1", "prove a1"]


def other(bench: Bench, *variants: dict[str, Any], **sections: Any) -> Any:
    return bench.recipe(variants=list(variants), **sections)


FIRST = {"name": "first", "adapter": "run-1"}


def test_a_reload_makes_what_is_served_that_of_the_document(bench: Bench) -> None:
    document = other(bench, FIRST | {"system": "Brief."}, {"name": "new", "adapter": "run-2"})
    before = bench.state()
    plan = bench.deployment.plan(document)
    assert (plan.added, plan.removed, plan.changed) == (["new"], ["base"], ["first"])
    assert plan.complete and bench.state() == before
    done = bench.deployment.reload(document)
    assert done == plan
    assert names(bench) == ["first", "new"]
    assert bench.served("first").variant.system == "Brief."
    assert bench.engine.calls == ["load a2", "prove a2"]
    again = bench.deployment.plan(document)
    assert (again.added, again.removed, again.changed) == ([], [], [])


def test_a_run_that_was_trained_again_is_a_change(bench: Bench) -> None:
    bench.store.contents["run-1"] = "a9"
    done = bench.deployment.reload(other(bench, {"name": "base"}, FIRST))
    assert done.changed == ["first"]
    assert bench.engine.calls == ["load a9", "prove a9", "unload a1"]
    assert bench.served("first").engine_name == "a9"


def test_what_needs_a_new_start_is_named_and_the_rest_is_applied(bench: Bench) -> None:
    bench.store.ranks["run-3"] = 64
    document = other(
        bench, {"name": "base"}, FIRST, {"name": "new", "adapter": "run-2"}, {"name": "big", "adapter": "run-3"},
        engine={"dtype": "float32", "restarts": 7}, model={"model_name_or_path": "org/other"},
        gateway={"port": 9, "max_requests": 5, "api_key": "k", "shutdown_timeout": 1.0}, parity="warn",
    )  # fmt: skip
    done = bench.deployment.reload(document)
    assert done.restart == ["model.model_name_or_path", "engine.dtype", "gateway.port"]
    assert list(done.refused) == ["big"] and "has rank 64" in done.refused["big"]
    assert not done.complete and done.added == ["new"]
    now = bench.deployment.recipe
    assert (now.parity, now.engine.restarts, now.engine.dtype) == ("warn", 7, "auto")
    assert (now.gateway.max_requests, now.gateway.api_key, now.gateway.port) == (5, "k", 8000)
    assert bench.applied == [now.gateway]


def test_a_variant_that_cannot_be_served_as_the_document_says_stays_as_it_is(bench: Bench) -> None:
    del bench.store.contents["run-1"]
    bench.engine.differing.add("run-2")
    bench.deployment.add(Variant(name="mine", system="Brief."))
    done = bench.deployment.reload(other(bench, {"name": "base"}, FIRST, {"name": "mine", "adapter": "run-2"}))
    assert set(done.refused) == {"first", "mine"} and done.changed == []
    assert bench.served("first").engine_name == "a1"
    assert bench.served("mine").engine_name == BASE
    assert set(bench.engine.adapters) == {"a1"}


def test_a_removal_makes_room_for_an_addition(bench: Bench) -> None:
    bench.engine.most = 1
    done = bench.deployment.reload(other(bench, {"name": "base"}, {"name": "new", "adapter": "run-2"}))
    assert (done.added, done.removed, done.refused) == (["new"], ["first"], {})
    assert set(bench.engine.adapters) == {"a2"}


def test_the_last_variant_stays_where_what_should_replace_it_cannot_be_served(bench: Bench) -> None:
    bench.engine.refused.add("run-2")
    done = bench.deployment.reload(other(bench, {"name": "new", "adapter": "run-2"}))
    assert names(bench) == ["first"] and set(done.refused) == {"new", "first"}
