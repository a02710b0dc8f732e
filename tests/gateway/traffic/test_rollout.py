"""Rollouts through the real application, over an engine whose models answer well, badly, or slowly."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench.errors import LlmbenchError
from llmbench.gateway import Catalogue, Served, build
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedbacks
from llmbench.gateway.relay import Upstream
from llmbench.gateway.traffic import Control, Routes
from llmbench.recipe import Guardrails, RolloutSpec, RouteSpec, Variant

pytestmark = pytest.mark.anyio
QUICK = {"plan": [20, 50, 100], "least": 10}
LENIENT = {"errors": 0.2, "first_token": None, "length": 2.0, "abstention": None, "citations": None}


class _Engine(httpx.AsyncBaseTransport):
    """`bad` answers nothing; streams wait for `go` before their last piece."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.bad: set[str] = set()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        text = "" if body["model"] in self.bad else "A red kettle."
        if body.get("stream"):
            return httpx.Response(200, stream=_Stream(self, text))
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": body["model"], "choices": [choice]})


class _Stream(httpx.AsyncByteStream):
    def __init__(self, engine: _Engine, text: str) -> None:
        self.engine, self.text = engine, text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for text, reason in ((self.text, None), ("", "stop")):
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
            yield b"data: " + json.dumps({"model": "m", "choices": [choice]}).encode() + b"\n\n"
            if reason is None:
                await self.engine.go.wait()
        yield b"data: [DONE]\n\n"


class Server:
    """Variants `old` and `new`, the route `support`, and the rollouts on it, recorded in a folder."""

    def __init__(self, folder: Path, **spec: Any) -> None:
        self.later = 0.0
        self.said: list[str] = []
        self.engine = _Engine()
        self.routes = Routes([RouteSpec.model_validate({"name": "support", "variants": {"old": 1}} | spec)])
        self.catalogue = Catalogue([Served(Variant(name=name), name, {}) for name in ("old", "new")], context=1024)
        self.control = Control(
            self.routes,
            lambda: self.catalogue.now.known,
            folder,
            say=self.said.append,
            clock=lambda: time.monotonic() + self.later,
        )
        app = build(
            self.catalogue, Upstream(self.engine, lambda: None), sinks=[self.control.told], routes=self.routes,
            feedbacks=Feedbacks([self.control.told_feedback]),
        )  # fmt: skip
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    async def ask(self, user: str, **more: Any) -> httpx.Response:
        body = {"model": "support", "messages": [{"role": "user", "content": "Hi"}], "user": user} | more
        return await self.http.post("/v1/chat/completions", json=body)

    async def asked(self, start: int, count: int) -> set[str]:
        """Asks for that many users; who answered."""
        found = set()
        for number in range(start, start + count):
            found.add((await self.ask(f"user {number}")).headers["x-llmbench-variant"])
            self.control.look()
        return found

    async def vote(self, user: str, *, good: bool) -> str:
        """Asks for a user and votes on the answer; who gave it."""
        answer = await self.ask(user)
        body = {"request_id": answer.headers["x-request-id"], "value": good}
        assert (await self.http.post("/v1/feedback", json=body)).status_code == 200
        return answer.headers["x-llmbench-variant"]

    def state(self) -> str:
        return str(self.control.status("support")["state"])


@contextmanager
def serving(folder: Path, **spec: Any) -> Iterator[Server]:
    server = Server(folder, **({"rollout": QUICK, "guardrails": LENIENT} | spec))
    with server.control.running():
        yield server


async def test_a_good_variant_climbs_to_all_requests_and_every_decision_is_recorded(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        begun = server.control.start("support", "new")
        assert (begun["state"], begun["share"], begun["step"], begun["steps"]) == ("running", 20.0, 1, [20.0, 50.0, 100.0])
        assert await server.asked(0, 500) == {"old", "new"}
        assert server.state() == "promoted" and await server.asked(500, 20) == {"new"}
        status = server.control.status("support")
        assert [line["action"] for line in status["audit"]] == ["start", "step", "promote"]
        assert {line["plan"] for line in status["audit"]} == {begun["hash"]}
        last = {one["rail"]: one for one in status["audit"][-1]["evidence"]}
        assert last["errors"]["state"] == "not worse" and last["errors"]["high"] <= 0.2
        assert status["units"] == status["audit"][-1]["units"]
    recorded = Path(status["folder"])
    assert recorded == tmp_path / "support" / "0001"
    assert "user" not in (recorded / "observations.jsonl").read_text().replace('"user', "")
    assert "red kettle" not in (recorded / "observations.jsonl").read_text()
    assert any("promote" in line for line in server.said)


async def test_a_bad_variant_is_rolled_back_by_the_server_itself(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.engine.bad = {"new"}
        server.control.start("support", "new")
        for number in range(400):
            await server.ask(f"user {number}")
            if server.routes.now["support"].weights == {"old": 100.0, "new": 0.0}:
                break
            await asyncio.sleep(0.005)  # the watch looks in a thread of its own
        assert await server.asked(1_000, 20) == {"old"}
        server.routes.refuse_removal("new")  # nothing keeps it now
        with pytest.raises(LlmbenchError, match="old is used by the route support"):
            server.routes.refuse_removal("old")
        status = server.control.status("support")
        assert status["state"] == "rolled back" and status["reason"] == "worse than old: errors"
        evidence = {one["rail"]: one for one in status["audit"][-1]["evidence"]}["errors"]
        assert evidence["state"] == "worse" and evidence["canary"] == 1.0 and evidence["low"] > evidence["margin"]
        assert status["units"]["new"] < 100


async def test_fifty_open_streams_end_whole_when_their_variant_is_rolled_back(tmp_path: Path) -> None:
    with serving(tmp_path, sticky="none") as server:
        server.control.start("support", "new")
        streams = [asyncio.create_task(server.ask(f"user {i}", stream=True)) for i in range(120)]
        while server.catalogue.now.known["new"].requests.running + server.catalogue.now.known["old"].requests.running < 120:
            await asyncio.sleep(0.01)
        assert server.catalogue.now.known["new"].requests.running > 5
        server.engine.bad = {"new"}
        assert await server.asked(0, 300) == {"old", "new"}
        assert server.state() == "rolled back" and await server.asked(0, 20) == {"old"}
        assert server.catalogue.now.known["new"].requests.running > 5
        server.engine.go.set()
        answers = await asyncio.gather(*streams)
        assert {answer.headers["x-llmbench-variant"] for answer in answers} == {"old", "new"}
        assert all(answer.text.endswith("data: [DONE]\n\n") and "error" not in answer.text for answer in answers)
        server.control.look()  # what they said came too late to change anything
        assert server.state() == "rolled back"


async def test_a_server_that_is_started_again_goes_on_where_it_was(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.control.start("support", "new", rollout=RolloutSpec(plan=[20, 50, 100], least=1_000))
        await server.asked(0, 60)
        before = server.control.status("support")
        arms = [(await server.ask(f"user {i}")).headers["x-llmbench-variant"] for i in range(20)]
    observations = Path(before["folder"]) / "observations.jsonl"
    observations.write_text(observations.read_text() + '{"step": 0, "vari')  # as a kill leaves it
    with serving(tmp_path) as server:
        after = server.control.status("support")
        assert after["units"] == before["units"] and after["hash"] == before["hash"] and after["share"] == 20.0
        assert after["audit"][-1]["action"] == "restore"
        assert [(await server.ask(f"user {i}")).headers["x-llmbench-variant"] for i in range(20)] == arms
        await server.asked(0, 60)
        assert server.control.status("support")["units"] == before["units"]  # nobody counts twice
        await server.asked(60, 20)
        assert sum(server.control.status("support")["units"].values()) == sum(before["units"].values()) + 20


async def test_what_was_promoted_stays_so_until_the_document_divides_otherwise(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.control.start("support", "new")
        await server.asked(0, 500)
        assert server.state() == "promoted"
    with serving(tmp_path) as server:
        assert await server.asked(0, 10) == {"new"}
    with serving(tmp_path, variants={"old": 3, "new": 0}) as server:
        assert await server.asked(0, 10) == {"old"}
        assert any("divided as the document says" in line for line in server.said)


async def test_a_running_one_ends_where_the_document_changed_meanwhile(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.control.start("support", "new")
    with serving(tmp_path, variants={"old": 1, "new": 1}) as server:
        status = server.control.status("support")
        assert status["state"] == "aborted" and "document" in status["reason"]
        assert server.routes.now["support"].weights == {"old": 1.0, "new": 1.0}


async def test_down_votes_roll_a_variant_back_and_are_kept_over_a_restart(tmp_path: Path) -> None:
    spec = {"guardrails": LENIENT | {"votes": 0.1}, "rollout": {"plan": [50, 100], "least": 10}}
    with serving(tmp_path, **spec) as server:
        server.control.start("support", "new")
        votes = {"old": 0, "new": 0}
        for number in range(16):
            votes[await server.vote(f"user {number}", good=number % 4 > 0)] += 1
            await server.vote(f"user {number}", good=False)  # a unit counts once
        server.control.look()
        status = server.control.status("support")
        (one,) = [row for row in status["evidence"] if row["rail"] == "votes"]
        assert {"new": one["canary_n"], "old": one["control_n"]} == votes == status["units"]
        assert status["turnout"] == [{"rail": "votes", "canary": 1.0, "control": 1.0, "differs": None}]
    with serving(tmp_path, **spec) as server:
        (again,) = [row for row in server.control.status("support")["evidence"] if row["rail"] == "votes"]
        assert again == one
        for number in range(16, 200):
            answer = await server.ask(f"user {number}")
            body = {"request_id": answer.headers["x-request-id"], "value": answer.headers["x-llmbench-variant"] == "old"}
            await server.http.post("/v1/feedback", json=body)
            server.control.look()
            if server.state() != "running":
                break
        status = server.control.status("support")
        assert (status["state"], status["reason"]) == ("rolled back", "worse than old: votes")
        (last,) = [row for row in status["audit"][-1]["evidence"] if row["rail"] == "votes"]
        assert last["state"] == "worse" and last["canary"] < 0.5 < last["control"]
        assert [row["rail"] for row in status["turnout"]] == ["votes"]  # of the last decision's evidence


async def test_a_vote_on_an_answer_of_an_earlier_step_counts_for_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, guardrails=LENIENT | {"votes": 0.1}) as server:
        before = (await server.ask("user 0")).headers["x-request-id"]
        server.control.start("support", "new")
        early = (await server.ask("user 0")).headers["x-request-id"]
        await server.asked(1, 200)
        assert server.control.status("support")["step"] > 1
        for id in (before, early):
            assert (await server.http.post("/v1/feedback", json={"request_id": id, "value": True})).status_code == 200
        server.control.look()
        (one,) = [row for row in server.control.status("support")["evidence"] if row["rail"] == "votes"]
        assert (one["state"], one["canary_n"], one["control_n"]) == ("no data", 0, 0)


async def test_pause_resume_and_abort(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.control.start("support", "new")
        assert server.control.pause("support")["state"] == "paused"
        await server.asked(0, 300)
        assert server.control.status("support")["step"] == 1
        assert server.control.resume("support")["state"] == "running"
        server.control.abort("support")
        assert server.state() == "aborted" and await server.asked(0, 20) == {"old"}
        actions = [line["action"] for line in server.control.status("support")["audit"]]
        assert [one for one in actions if one not in ("step", "promote")] == ["start", "pause", "resume", "abort"]
        for change in (server.control.pause, server.control.resume, server.control.abort):
            with pytest.raises(LlmbenchError, match="rollout of support is aborted"):
                change("support")
        assert server.control.start("support", "new")["number"] == 2


async def test_other_options_than_the_document_s_are_told(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        begun = server.control.start("support", "new", guardrails=Guardrails(errors=0.5))
        assert "guardrails other than the document's" in begun["audit"][0]["reason"]


async def test_a_plan_that_was_changed_on_disk_is_not_taken_up(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        folder = Path(server.control.start("support", "new")["folder"])
    state = json.loads((folder / "state.json").read_text())
    state["plan"]["margins"]["errors"] = 0.9
    (folder / "state.json").write_text(json.dumps(state))
    with serving(tmp_path) as server:
        assert any("plan has changed since the rollout began" in line for line in server.said)
        assert await server.asked(0, 20) == {"old"}


@pytest.mark.parametrize(
    ("route", "canary", "said"),
    [
        ("other", "new", "There is no route other. Available: support"),
        ("support", "nobody", "There is no variant nobody. Available: old, new"),
        ("support", "old", "old answers all of support already"),
    ],
)
async def test_what_cannot_be_started_is_one_line(tmp_path: Path, route: str, canary: str, said: str) -> None:
    with serving(tmp_path) as server:
        with pytest.raises(LlmbenchError, match=said):
            server.control.start(route, canary)
        assert server.control.listing() == []
        server.control.start("support", "new")
        with pytest.raises(LlmbenchError, match="support has a rollout"):
            server.control.start("support", "new")
        with pytest.raises(LlmbenchError, match="support has a rollout"):
            server.routes.drop("support")
        with pytest.raises(LlmbenchError, match="new answers requests of the route support by a rollout"):
            server.routes.refuse_removal("new")


async def test_two_servers_of_one_document_do_not_write_one_record(tmp_path: Path) -> None:
    with serving(tmp_path) as first, serving(tmp_path) as second:
        first.control.start("support", "new")
        with pytest.raises(LlmbenchError, match="in use by process"):
            second.control.start("support", "new")


async def test_a_canary_that_is_served_no_more_is_aborted_at_the_start(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.control.start("support", "new")
    again = Server(tmp_path, rollout=QUICK, guardrails=LENIENT)
    again.catalogue.drop("new")
    with again.control.running():
        assert again.control.status("support")["reason"] == "new is not served"
        assert await again.asked(0, 10) == {"old"}


async def test_answers_of_one_side_that_go_missing_pause_it_once_they_should_have_ended(tmp_path: Path) -> None:
    with serving(tmp_path, rollout={"plan": [50, 100], "least": 1_000}) as server:
        server.control.start("support", "new")
        for number in range(120):
            exchange = Exchange("/v1/chat/completions", asked="support", arm="old", unit=str(number), status=200)
            server.control.told(exchange)
        server.control.look()
        assert server.state() == "running"  # those of the other one may be slow
        server.later = 100.0
        server.control.look()
        status = server.control.status("support")
        assert status["state"] == "paused" and "sample-ratio mismatch: new has 0 of 120 units" in status["reason"]
        assert any("sample-ratio mismatch" in line for line in server.said)
        assert server.control.resume("support")["state"] == "running"
        server.control.look()
        assert server.state() == "running" and server.control.status("support")["units"] == {"new": 0, "old": 120}
