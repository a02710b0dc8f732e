"""Engines that run elsewhere, on real ports: which are let in, what each must have, and what happens when they go and come."""

from __future__ import annotations

import json
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.gateway.vllms import Vllm, running

from llmbench.cli import variants
from llmbench.engine import Adapter
from llmbench.engine.key_guard import LEASE_SECONDS
from llmbench.errors import EngineError, LlmbenchError
from llmbench.gateway import admin, started
from llmbench.gateway import fleet as fleet_module
from llmbench.gateway import joining as joining_module
from llmbench.gateway import member as member_module
from llmbench.gateway.fleet import Fleet
from llmbench.gateway.reload_plan import fixed
from llmbench.recipe import ServeRecipe

KEY = "sesame-open-1234"


def recipe(engines: list[Vllm], **sections: Any) -> ServeRecipe:
    engine = {"urls": [one.url for one in engines], "max_adapters": 3, "start_timeout": 30} | sections.pop("engine", {})
    document = {"variants": [{"name": "base"}], "gateway": {"port": 0, "shutdown_timeout": 0.2}, "parity": "off"}
    return ServeRecipe.model_validate(document | {"engine": engine} | sections)


@pytest.fixture
def adapter(tmp_path: Path) -> Callable[[str], Adapter]:
    def make(id: str) -> Adapter:
        (tmp_path / id).mkdir(exist_ok=True)
        return Adapter(id, f"run-{id}", tmp_path / id, 8)

    return make


@contextmanager
def fleet_of(
    engines: list[Vllm], adapters: dict[str, Adapter] | None = None, **sections: Any
) -> Iterator[tuple[Fleet, list[str]]]:
    said: list[str] = []
    with Fleet(recipe(engines, **sections), adapters or {}, said.append) as fleet:
        yield fleet, said


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(joining_module, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(joining_module, "_PROBE_SECONDS", 0.05)


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def states(fleet: Fleet) -> list[object]:
    return [row["state"] for row in fleet.listing()]


def test_each_engine_that_serves_the_documents_base_is_let_in() -> None:
    with running(3) as engines, fleet_of(engines) as (fleet, said):
        fleet.wait()
        assert states(fleet) == ["ready"] * 3
        assert (fleet.context, fleet.problem, fleet.token_ids("Hello")) == (1024, None, [1, 2, 3])
        assert said == [f"Engines: {', '.join(one.url for one in engines)}"]


def test_an_engine_that_is_not_there_yet_joins_when_it_comes(adapter: Callable[[str], Adapter]) -> None:
    with running(2) as (first, second):
        second.stop()
        with fleet_of([first, second], {"run-a1": adapter("a1")}) as (fleet, said):
            fleet.wait()
            assert states(fleet) == ["ready", "out"] and first.loads == ["+a1"]
            assert any(line.startswith(f"Going on without {second.url}, which joins when it comes: ") for line in said)
            second.start()
            until(lambda: states(fleet) == ["ready", "ready"])
            assert second.loads == ["+a1"] and said[-1] == f"Engine {second.url} answers, and is given requests"


def test_without_an_engine_the_start_ends_and_names_each() -> None:
    with running(2) as engines:
        for one in engines:
            one.stop()
        with fleet_of(engines, engine={"start_timeout": 0.3}) as (fleet, _), pytest.raises(EngineError) as told:
            fleet.wait()
    assert str(told.value).startswith("No engine answered within 0.3 s: ") and "\n" not in str(told.value)
    assert all(f"{one.url} does not answer (ConnectError" in str(told.value) for one in engines)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"root": "/models/other"}, r"{1} serves other, but .*recipe\.yaml names model\. Start it with this document"),
        (
            {"context": 512},
            r"({0} takes 1,024 tokens, but {1} takes 512|{1} takes 512 tokens, but {0} takes 1,024)\. Start both",
        ),
        (
            {"tokens": [1, 2]},
            r"({0} reads a text as other tokens than {1}|{1} reads a text as other tokens than {0}): their bases",
        ),
        ({"key": "another"}, r"{1} refuses the key \(401\)\. Set engine\.api_key"),
    ],
)
def test_an_engine_that_serves_something_else_ends_the_start_in_one_line(wrong: dict[str, Any], message: str) -> None:
    with running(2) as engines:
        for name, value in wrong.items():
            setattr(engines[1], name, value)
        with (
            fleet_of(engines) as (fleet, _),
            pytest.raises(EngineError, match=message.format(*(one.url for one in engines))) as told,
        ):
            fleet.wait()
        assert "\n" not in str(told.value)


def test_an_adapter_is_loaded_into_all_engines_or_none(adapter: Callable[[str], Adapter]) -> None:
    with running(2) as engines, fleet_of(engines) as (fleet, _):
        fleet.wait()
        fleet.load(adapter("a1"))
        assert [one.loaded for one in engines] == [{"a1"}, {"a1"}]
        engines[1].unreadable.add("a2")
        with pytest.raises(
            EngineError, match=rf"run-a2: it answers 404.*The engine at {engines[1].url} reads .*a2 on its own machine"
        ):
            fleet.load(adapter("a2"))
        assert [one.loaded for one in engines] == [{"a1"}, {"a1"}] and list(fleet.adapters) == ["a1"]
        fleet.unload("a1")
        assert [one.loaded for one in engines] == [set(), set()] and states(fleet) == ["ready", "ready"]


def test_what_does_not_fit_is_refused_before_an_engine_sees_it(adapter: Callable[[str], Adapter]) -> None:
    with running(2, adapters=("of-another-gateway",)) as engines, fleet_of(engines) as (fleet, _):
        fleet.wait()
        for id in ("a1", "a2"):
            fleet.load(adapter(id))
        with pytest.raises(EngineError, match="started for 3 adapters, and has them"):
            fleet.load(adapter("a3"))
        assert [one.loads for one in engines] == [["+a1", "+a2"]] * 2


def test_an_engine_that_was_away_catches_up_before_it_is_let_in(adapter: Callable[[str], Adapter]) -> None:
    with running(2) as (first, second), fleet_of([first, second]) as (fleet, said):
        fleet.wait()
        fleet.load(adapter("a1"))
        second.stop()
        until(lambda: states(fleet) == ["ready", "out"])
        fleet.load(adapter("a2"))
        fleet.unload("a1")
        assert first.loaded == {"a2"} and second.loaded == {"a1"}
        second.unreadable.add("a2")
        second.start()
        until(lambda: any(f"Engine {second.url} stays out: vLLM does not load adapter run-a2" in line for line in said))
        assert second.loaded == set() and states(fleet) == ["ready", "out"]
        second.unreadable.clear()
        until(lambda: states(fleet) == ["ready", "ready"])
        assert second.loaded == {"a2"}


def test_an_engine_that_is_not_well_is_left_out_and_comes_back_when_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(2) as (first, second), fleet_of([first, second]) as (fleet, said):
        fleet.wait()
        first.well = False
        until(lambda: states(fleet) == ["out", "ready"])
        assert f"Engine {first.url} is left out: its /health answers 503. 1 of 2 answer" in said
        first.well = True
        until(lambda: states(fleet) == ["ready", "ready"])


def test_what_was_proven_is_proven_again_where_the_process_is_another_one(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    proven: list[tuple[str, tuple[str, ...]]] = []

    def prove(_: Any, at: Any, adapters: Any, *__: Any, **___: Any) -> dict[str, Any]:
        proven.append((at.url, tuple(one.id for one in adapters)))
        return dict.fromkeys(proven[-1][1])

    monkeypatch.setattr(member_module, "prove_adapters", prove)
    monkeypatch.setattr(member_module, "prove_served_base", lambda *_, **__: None)
    with running(2) as (first, second), fleet_of([first, second], {"run-a1": adapter("a1")}, parity="require") as (fleet, _):
        fleet.wait()
        assert sorted(proven) == sorted([(first.url, ("a1",)), (second.url, ("a1",))])
        proven.clear()
        first.well = False  # the same process, which was away for a moment
        until(lambda: states(fleet) == ["out", "ready"])
        first.well = True
        until(lambda: states(fleet) == ["ready", "ready"])
        assert proven == [(first.url, ())]
        proven.clear()
        second.stop()
        until(lambda: states(fleet) == ["ready", "out"])
        second.start()
        until(lambda: states(fleet) == ["ready", "ready"])
        assert proven == [(second.url, ("a1",))]


class Asked:
    """A gateway in front of engines, with all that it has said."""

    def __init__(self, engines: list[Vllm], **sections: Any) -> None:
        self.said: list[str] = []
        self.running = started(recipe(engines, **sections), log=self.said.append)

    def __enter__(self) -> Asked:
        self.gateway = self.running.__enter__()
        self.http = httpx.Client(base_url=self.gateway.base_url.removesuffix("/v1"), timeout=30)
        return self

    def __exit__(self, *error: Any) -> None:
        self.http.close()
        self.running.__exit__(*error)

    def chat(self, text: str, **fields: Any) -> httpx.Response:
        body = {"model": "base", "messages": [{"role": "user", "content": text}]}
        return self.http.post("/v1/chat/completions", json=body | fields)


def test_a_gateway_answers_from_its_engines_and_says_how_they_stand() -> None:
    with running(2) as engines, Asked(engines, engine={"max_num_seqs": 3}) as asked:
        ports = [asked.chat(f"text {number}").json()["port"] for number in range(20)]
        assert set(ports) == {one.port for one in engines}
        assert asked.http.get("/ready").json()["status"] == "ready"
        text = asked.http.get("/metrics").text
        for one in engines:
            assert f'llmbench_engine_up{{engine_url="{one.url}"}} 1.0' in text
            count = ports.count(one.port)
            assert f'llmbench_engine_requests_total{{engine_url="{one.url}",outcome="answered"}} {float(count)}' in text
            assert f'vllm:prompt_tokens_total{{engine_url="{one.url}",engine="0",model_name="base"}} {count}' in text
        assert [row["requests"] for row in asked.gateway.engines] == [0, 0] and asked.gateway.state == "running"
        engines[0].stop()
        until(lambda: f'llmbench_engine_up{{engine_url="{engines[0].url}"}} 0.0' in asked.http.get("/metrics").text)
        assert {asked.chat(f"text {number}").json()["port"] for number in range(20)} == {engines[1].port}
        engines[1].stop()
        until(lambda: asked.http.get("/ready").status_code == 503)
        response = asked.chat("Hello")
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert asked.gateway.state == "away"
        engines[1].start()
        until(lambda: asked.chat("Hello").status_code == 200)


def test_as_many_requests_are_computed_at_once_as_the_engines_that_are_well_have_places() -> None:
    with running(2) as engines, Asked(engines, engine={"max_num_seqs": 2}) as asked:
        for one in engines:
            one.holds.clear()
        threads = [threading.Thread(target=asked.chat, args=(f"text {number}",)) for number in range(9)]
        for thread in threads:
            thread.start()
        until(lambda: sum(len(one.asked) for one in engines) == 4)
        time.sleep(0.2)
        assert sum(len(one.asked) for one in engines) == 4
        for one in engines:
            one.holds.set()
        for thread in threads:
            thread.join()
        assert sum(len(one.asked) for one in engines) == 9


def test_variants_list_shows_the_engines(capsys: pytest.CaptureFixture[str]) -> None:
    with running(2) as engines, Asked(engines) as asked, admin.offered(asked.gateway, lambda: recipe(engines)) as path:
        engines[0].stop()
        until(lambda: states_of(asked) == ["out", "ready"])
        variants.list_variants(socket=path)
        lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.split() == ["engine", "state", "requests", "reason"])
    assert lines[at + 1].split()[:3] == [engines[0].url, "out", "0"] and "ConnectError" in lines[at + 1]
    assert lines[at + 2].split() == [engines[1].url, "ready", "0"]


def states_of(asked: Asked) -> list[object]:
    return [one["state"] for one in asked.gateway.engines]


def test_what_an_engine_that_hangs_has_not_begun_is_answered_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining_module, "PROBE_TIMEOUT", 0.1)
    with running(2) as (first, second), Asked([first, second]) as asked:
        for number in range(20):  # connections that are kept
            asked.chat(f"text {number}")
        first.hangs = True
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(asked.chat, [f"text {number}" for number in range(20)]))
        assert {answer.json()["port"] for answer in answers} == {second.port}
        assert any(f"Engine {first.url} is left out: ReadTimeout" in line for line in asked.said)
        first.hangs = False
        until(lambda: states_of(asked) == ["ready", "ready"])


def test_the_engines_key_is_sent_and_said_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with running(2, key=KEY) as engines:
        with pytest.raises(LlmbenchError) as told, Asked(engines, engine={"api_key": KEY[:-1]}):
            pass
        document = recipe(engines, engine={"api_key": KEY})
        with Asked(engines, engine={"api_key": KEY}) as asked:
            engines[0].status = 500
            texts = [asked.chat(f"text {number}").text for number in range(10)]
            engines[0].stop()
            texts += [asked.http.get(path).text for path in ("/ready", "/health", "/metrics", "/v1/models", "/openapi.json")]
            texts += [json.dumps(asked.gateway.engines), repr(document), str(told.value), *asked.said]
        shown = "".join([*texts, *capfd.readouterr()])
    assert KEY[:-1] not in shown and engines[0].url in shown
    assert all(one.asked for one in engines)


def named(engines: list[Vllm], **sections: Any) -> ServeRecipe:
    """The document as it is edited: these engines."""
    return recipe(engines, **sections)


def test_an_engine_that_a_reload_adds_has_and_proves_every_adapter_before_it_gets_a_request(
    monkeypatch: pytest.MonkeyPatch, adapter: Callable[[str], Adapter]
) -> None:
    with running(2) as (first, second), Asked([first]) as asked:
        fleet = asked.gateway._engine
        assert isinstance(fleet, Fleet)
        fleet.load(adapter("a1"))
        seen: list[tuple[set[str], int]] = []
        monkeypatch.setattr(
            member_module.Member, "prove", lambda self, *_: seen.append((set(second.loaded), len(second.asked)))
        )
        plan = asked.gateway.deployment.reload(named([first, second]))
        assert (plan.engines_added, plan.engines_removed, plan.complete) == ([second.url], [], True)
        assert seen == [({"a1"}, 0)] and states_of(asked) == ["ready", "ready"]
        assert {asked.chat(f"text {number}").json()["port"] for number in range(20)} == {first.port, second.port}
        assert f'engine_up{{engine_url="{second.url}"}} 1.0' in asked.http.get("/metrics").text
        assert asked.gateway.deployment.plan(named([first, second])).engines_added == []


def test_an_engine_that_serves_something_else_is_not_added() -> None:
    with running(2) as (first, second), Asked([first]) as asked:
        second.root = "/models/other"
        plan = asked.gateway.deployment.reload(named([first, second]))
        assert not plan.complete and plan.engines_added == []
        assert re.search(r"serves other, but .* names model\. Start it with this document$", plan.refused[second.url])
        assert [one["url"] for one in asked.gateway.engines] == [first.url]
        assert asked.gateway.deployment.plan(named([first])).complete


def test_an_added_engine_that_does_not_answer_yet_joins_when_it_comes() -> None:
    with running(2) as (first, second), Asked([first]) as asked:
        second.stop()
        plan = asked.gateway.deployment.reload(named([first, second]))
        assert plan.engines_added == [second.url] and "ConnectError" in plan.engines_waiting[second.url]
        assert states_of(asked) == ["ready", "out"] and plan.complete
        second.start()
        until(lambda: states_of(asked) == ["ready", "ready"])


def at_once(asked: Asked, **fields: Any) -> list[Future[httpx.Response]]:
    """The answers to 16 questions that are asked at once, so that each engine gets some."""
    pool = ThreadPoolExecutor(16)
    futures = [pool.submit(asked.chat, f"text {number}", **fields) for number in range(16)]
    pool.shutdown(wait=False)
    return futures


def test_an_engine_that_a_reload_removes_ends_its_answers_and_is_asked_no_more() -> None:
    patient = {"port": 0, "shutdown_timeout": 30}
    with running(2) as (first, second), Asked([first, second], gateway=patient) as asked:
        for one in (first, second):
            one.holds.clear()
        futures = at_once(asked)
        until(lambda: len(first.asked) + len(second.asked) == 16)
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(asked.gateway.deployment.reload, named([first], gateway=patient))
            until(lambda: "draining" in states_of(asked))
            before = len(second.asked)
            first.holds.set()
            more = [asked.chat(f"more {number}").json()["port"] for number in range(8)]
            was_done, after = done.done(), len(second.asked)
            second.holds.set()
            plan = done.result()
        assert set(more) == {first.port} and not was_done and after == before > 0
        assert plan.engines_removed == [second.url] and plan.complete
        assert {future.result().json()["port"] for future in futures} == {first.port, second.port}
        assert [one["url"] for one in asked.gateway.engines] == [first.url]
        assert second.url not in asked.http.get("/metrics").text


def test_what_a_removed_engine_has_not_begun_in_time_is_answered_by_another_and_what_it_has_ends_with_an_error() -> None:
    with running(2) as (first, second), Asked([first, second]) as asked:
        second.holds.clear()
        futures = at_once(asked)
        until(lambda: sum(one.done() for one in futures) + int(asked.gateway.engines[1]["requests"]) == 16)
        waiting = int(asked.gateway.engines[1]["requests"])
        streams = at_once(asked, stream=True)
        until(lambda: len(first.asked) + len(second.asked) == 32)
        plan = asked.gateway.deployment.reload(named([first]))
        assert plan.engines_removed == [second.url] and waiting
        assert {future.result().json()["port"] for future in futures} == {first.port}
        texts = [future.result().text for future in streams]
        cut = [text for text in texts if str(second.port) in text]
        assert cut and all('"error"' in text for text in cut)
        assert all("[DONE]" in text and '"error"' not in text for text in texts if text not in cut)
        assert any(f"Engine {second.url} is no longer asked; cut off {len(cut)} answers" in line for line in asked.said)


def test_the_only_engine_that_answers_is_not_removed() -> None:
    with running(2) as (first, second), Asked([first, second]) as asked:
        first.stop()
        until(lambda: states_of(asked) == ["out", "ready"])
        plan = asked.gateway.deployment.reload(named([first]))
        assert plan.refused == {second.url: f"{second.url} is the only engine that answers. Start another one first"}
        assert states_of(asked) == ["out", "ready"] and asked.chat("Hello").status_code == 200
        assert asked.gateway.deployment.reload(named([second])).engines_removed == [first.url]
        assert states_of(asked) == ["ready"]


def test_reload_prints_which_engines_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    with running(3) as (first, second, third), Asked([first, second]) as asked:
        third.stop()
        ended = threading.Event()
        with admin.offered(asked.gateway, lambda: named([first, third])) as path, ThreadPoolExecutor(1) as pool:
            told = pool.submit(variants.reload, socket=path)
            told.add_done_callback(lambda _: ended.set())
            while not ended.is_set():
                asked.gateway.attend(0.01)
            told.result()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"add     engine {third.url}", f"remove  engine {second.url}"]
    assert lines[2].startswith(f"wait    engine {third.url}: ") and lines[2].endswith(". It joins when it answers")
    assert lines[3:] == ["Done."]


def test_engines_come_and_go_only_where_there_were_some() -> None:
    with running(1) as (one,):
        with_engines = recipe([one])
        without = with_engines.model_copy(update={"engine": with_engines.engine.model_copy(update={"urls": []})})
        assert fixed(with_engines, without) == fixed(without, with_engines) == ["engine.urls"]
        assert fixed(with_engines, recipe([one, Vllm()])) == []


def test_a_gateway_takes_over_what_one_that_has_ended_has_loaded_and_unloads_the_rest(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "_HOLD_SECONDS", 0.05)
    with running(1) as (one,):
        with fleet_of([one]) as (fleet, _):
            fleet.wait()
            fleet.load(adapter("a1"))
            fleet.load(adapter("a2"))
        with fleet_of([one], {"run-a1": adapter("a1")}) as (fleet, said):
            fleet.wait()
            held = one.holds_said
            until(lambda: one.holds_said > held + 1)
            assert one.loads == ["+a1", "+a2"] and states(fleet) == ["ready"] and len(said) == 1  # it may be running still
            one.later = LEASE_SECONDS
            until(lambda: one.loaded == {"a1"})
            fleet.load(adapter("a3"))
            fleet.load(adapter("a4"))  # its place is free
        assert one.loads == ["+a1", "+a2", "-a2", "+a3", "+a4"]
        assert said[1:] == [f"Engine {one.url}: unloaded adapter a2, which a gateway that has ended had loaded"]


def test_what_one_gateway_has_loaded_and_two_use_is_unloaded_by_the_last(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "_HOLD_SECONDS", 0.05)
    with running(1) as (one,), fleet_of([one]) as (first, _), fleet_of([one]) as (second, _):
        first.wait()
        second.wait()
        first.load(adapter("a1"))
        second.load(adapter("a1"))
        assert one.loads == ["+a1"]
        first.unload("a1")
        assert one.loaded == {"a1"}
        second.unload("a1")
        until(lambda: one.loads == ["+a1", "-a1"])  # at once, or when the first one has said again what it uses


def test_an_engine_that_is_removed_keeps_what_another_gateway_uses(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining_module, "_HOLD_SECONDS", 0.05)
    with running(2) as (one, two), fleet_of([one, two]) as (first, _), fleet_of([one]) as (second, _):
        first.wait()
        second.wait()
        until(lambda: states(first) == ["ready", "ready"])
        first.load(adapter("a1"))
        second.load(adapter("a1"))
        first.load(adapter("a2"))
        first.remove(one.url, 0)
        assert one.loaded == {"a1"} and two.loaded == {"a1", "a2"}
        second.unload("a1")
        until(lambda: one.loaded == set())


@pytest.mark.parametrize("key", [None, KEY])
def test_adapters_of_nobody_knows_whom_are_named_once_with_what_unloads_one(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setattr(joining_module, "_HOLD_SECONDS", 0.05)
    with (
        running(1, adapters=("b1", "b2"), key=key) as (one,),
        fleet_of([one], {"run-a1": adapter("a1")}, engine={"api_key": key}) as (fleet, said),
    ):
        fleet.wait()
        one.well, one.later = False, LEASE_SECONDS
        until(lambda: states(fleet) == ["out"])
        one.well = True
        until(lambda: states(fleet) == ["ready"])
        assert one.loaded == {"a1", "b1", "b2"}
        (line,) = [line for line in said if "does not serve" in line]
        assert ": b1, b2. Each takes a place" in line and KEY not in line
        words = shlex.split(line.partition("If nobody uses one: ")[2].replace("$ENGINE_KEY", key or ""))
        body = {"lora_name": "b1"}
        assert words[:2] == ["curl", f"{one.url}/v1/unload_lora_adapter"] and json.loads(words[-1]) == body
        headers = dict(word.split(": ", 1) for word in words if ": " in word and word != words[-1])
        assert httpx.post(words[1], content=words[-1], headers=headers).status_code == 200 and "b1" not in one.loaded


def test_of_a_vllm_that_keeps_no_account_only_what_the_gateway_has_loaded_itself_is_unloaded(
    adapter: Callable[[str], Adapter],
) -> None:
    with running(1, adapters=("a1",), leases=False) as (one,), fleet_of([one], {"run-a1": adapter("a1")}) as (fleet, said):
        fleet.wait()
        fleet.load(adapter("a2"))
        fleet.unload("a2")
        fleet.unload("a1")
        assert one.loaded == {"a1"} and one.loads == ["+a2", "-a2"] and one.asked == []
        assert any("did not load: a1. Each takes" in line for line in said)


def test_what_an_engine_has_already_and_is_not_as_trained_is_loaded_again_once(
    adapter: Callable[[str], Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    def prove(_: Any, at: Any, adapters: Any, *__: Any, **___: Any) -> dict[str, Any]:
        if one.loads != ["-a1", "+a1"]:
            raise EngineError("adapter run-a1 answers as the base.")
        return dict.fromkeys(adapter.id for adapter in adapters)

    monkeypatch.setattr(member_module, "prove_adapters", prove)
    monkeypatch.setattr(member_module, "prove_served_base", lambda *_, **__: None)
    with running(1, adapters=("a1",)) as (one,), fleet_of([one], {"run-a1": adapter("a1")}, parity="require") as (fleet, said):
        fleet.wait()
        assert states(fleet) == ["ready"] and one.loads == ["-a1", "+a1"]
        assert said[-1] == f"Engine {one.url}: adapter run-a1 answers as the base. Loaded again what it had already"
