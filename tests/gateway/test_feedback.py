"""POST /v1/feedback: which answers can be spoken about, by whom, what counts, and who is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.gateway.observing.conftest import ObservedEngine, ask, client, observed

from llmbench.gateway.api import feedback
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.feedback import Feedback, Feedbacks
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.refusal import Refusal

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"


def wanted(**fields: Any) -> feedback.FeedbackRequest:
    return feedback.parse(json.dumps({"request_id": "r1", "value": True} | fields).encode())


def answered(feedbacks: Feedbacks, id: str = "r1", key: str = "", status: int = 200, **more: Any) -> Exchange:
    """A request that was answered."""
    exchange = Exchange(CHAT, id, key, variant="plain", asked="plain", status=status, **more)
    feedbacks.begun(exchange)
    feedbacks.told(exchange)
    return exchange


@pytest.fixture
def told() -> list[Feedback]:
    return []


@pytest.mark.parametrize(
    ("fields", "metric", "value"),
    [
        ({}, "vote", 1.0),
        ({"value": False, "metric": "vote", "comment": "Wrong."}, "vote", 0.0),
        ({"metric": None}, "vote", 1.0),
        ({"metric": "judge", "value": 0.25}, "judge", 0.25),
        ({"metric": "judge", "value": 1}, "judge", 1.0),
    ],
)
def test_a_vote_is_true_or_false_and_a_score_is_a_number(fields: dict[str, Any], metric: str, value: float) -> None:
    found = wanted(**fields)
    assert (found.request_id, found.metric, found.value, found.comment) == ("r1", metric, value, fields.get("comment"))


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"request_id": None}, "request_id", "request_id is missing: the x-request-id of the answer."),
        ({"request_id": 7}, "request_id", "request_id must be a text, not 7."),
        ({"value": None}, "value", "value must be true or false, not null."),
        ({"value": 1}, "value", "value must be true or false, not 1."),
        ({"value": "up"}, "value", 'value must be true or false, not "up".'),
        ({"metric": "judge", "value": True}, "value", "value must be a number from 0 to 1, not true."),
        ({"metric": "judge", "value": 7}, "value", "value must be a number from 0 to 1, not 7."),
        ({"metric": "stars"}, "metric", "metric must be vote or judge, not 'stars'."),
        ({"comment": "x" * 4001}, "comment", "comment has 4,001 characters; 4,000 are allowed."),
        ({"rating": "up"}, "rating", "rating is not accepted here: send value: true or false, or with metric: judge a number"),
        ({"trace_id": "r1"}, "trace_id", "trace_id is not accepted here: send request_id: the x-request-id of the answer."),
        ({"weight": 2}, "weight", "weight is not accepted here: each answer counts the same."),
        ({"colour": "red"}, "colour", "colour is not accepted here."),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(Refusal) as error:
        wanted(**fields)
    assert (error.value.status, error.value.param) == (400, param) and said in error.value.message


def test_the_last_of_each_kind_replaces_and_is_told_as_such(told: list[Feedback]) -> None:
    feedbacks = Feedbacks([told.append])
    answered(feedbacks)
    for fields in ({}, {"metric": "judge", "value": 0.5}, {"value": False}):
        feedbacks.give(wanted(**fields), "")
    assert [(one.metric, one.value, one.repeated) for one in told] == [
        ("vote", 1.0, False),
        ("judge", 0.5, False),
        ("vote", 0.0, True),
    ]
    assert told[0].request.given == {"vote": 0.0, "judge": 0.5}


def test_a_named_key_speaks_of_its_own_requests_only(told: list[Feedback]) -> None:
    feedbacks = Feedbacks([told.append])
    answered(feedbacks, key="alice")
    answered(feedbacks, key="bob")
    answered(feedbacks, id="r2", key="bob")
    feedbacks.give(wanted(), "bob")
    with pytest.raises(Refusal, match="No request of this key with the x-request-id 'r2' was answered") as error:
        feedbacks.give(wanted(request_id="r2"), "alice")
    assert (error.value.status, error.value.code) == (404, "request_not_found") and "\n" not in error.value.message
    feedbacks.give(wanted(request_id="r2"), None)  # whoever has gateway.api_key
    assert [(one.request.id, one.request.key) for one in told] == [("r1", "bob"), ("r2", "bob")]


def test_what_was_not_answered_or_is_no_answer_of_a_model_cannot_be_voted_on() -> None:
    feedbacks = Feedbacks()
    answered(feedbacks, status=503)
    other = Exchange("/tokenize", "r3", variant="plain", status=200)
    feedbacks.begun(other)
    feedbacks.told(other)
    assert feedbacks.count == 0
    for id in ("r1", "r3", ""):
        with pytest.raises(Refusal, match="No request with the x-request-id"):
            feedbacks.give(wanted(request_id=id), None)


def test_as_many_are_remembered_as_may_be_and_for_a_day(told: list[Feedback]) -> None:
    now = [1000.0]
    feedbacks = Feedbacks([told.append], clock=lambda: now[0], most=3)
    for number in range(5):
        answered(feedbacks, id=f"r{number}", key=f"k{number}", begun=now[0])
    assert feedbacks.count == 3 and len(feedbacks._keys) == 3
    for id in ("r0", "r1"):
        with pytest.raises(Refusal):
            feedbacks.give(wanted(request_id=id), None)
    now[0] += 86_000
    feedbacks.give(wanted(request_id="r2"), None)
    now[0] += 401
    with pytest.raises(Refusal):
        feedbacks.give(wanted(request_id="r3"), None)
    answered(feedbacks, id="new", begun=now[0])
    assert feedbacks.count == 1 and [one.request.id for one in told] == ["r2"]


def test_an_id_that_is_used_again_means_the_last_request(told: list[Feedback]) -> None:
    feedbacks = Feedbacks([told.append])
    answered(feedbacks)
    feedbacks.give(wanted(), "")
    first = Exchange(CHAT, "r1", variant="pages", status=200)
    feedbacks.begun(first)
    feedbacks.give(wanted(), "")
    feedbacks.told(Exchange(CHAT, "r1", variant="plain", status=500, begun=1.0))  # the one before it ends late
    feedbacks.told(first)
    assert [(one.request.variant, one.repeated) for one in told] == [("plain", False), ("pages", False)]
    assert feedbacks.count == 1


def test_what_is_said_while_an_answer_is_written_waits_for_its_end(told: list[Feedback]) -> None:
    feedbacks = Feedbacks([told.append])
    for id, status, heard in (("r1", 200, [(0.0, False)]), ("r2", 500, [])):
        exchange = Exchange(CHAT, id, variant="plain", status=status)
        feedbacks.begun(exchange)
        assert not feedbacks.give(wanted(request_id=id), "").repeated
        assert feedbacks.give(wanted(request_id=id, value=False), "").repeated
        assert told == []
        feedbacks.told(exchange)
        assert [(one.value, one.repeated) for one in told] == heard
        told.clear()


@pytest.mark.parametrize("body", [ask(), ask(stream=True)])
async def test_an_answer_is_voted_on_by_its_request_id_and_counted(body: dict[str, Any]) -> None:
    async with client(observed(ObservedEngine())) as http:
        id = (await http.post(CHAT, json=body)).headers["x-request-id"]
        for value, replaced in ((True, False), (False, True)):
            answer = await http.post("/v1/feedback", json={"request_id": id, "value": value})
            assert answer.json() == {
                "object": "feedback", "request_id": id, "metric": "vote", "value": value, "replaced": replaced,
            }  # fmt: skip
        score = {"request_id": id, "metric": "judge", "value": 0.75, "comment": "Cites well."}
        assert (await http.post("/v1/feedback", json=score)).json()["value"] == 0.75
        missing = await http.post("/v1/feedback", json={"request_id": "none", "value": True})
        assert missing.status_code == 404 and missing.json()["error"]["code"] == "request_not_found"
        text = (await http.get("/metrics")).text
    found = {
        (sample.name, sample.labels["model"], sample.labels.get("vote")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in ("llmbench_votes_total", "llmbench_judge_score_sum")
    }
    votes = {("llmbench_votes_total", "plain", "up"): 1, ("llmbench_votes_total", "plain", "down"): 0}
    assert found == votes | {("llmbench_judge_score_sum", "plain", None): 0.75}


async def test_a_vote_needs_the_key_of_its_request(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    alice, bob = store.new("alice"), store.new("bob")
    store.close()
    with Ledger(tmp_path / "keys.sqlite") as ledger:
        async with client(observed(ObservedEngine(), api_key="owner", ledger=ledger)) as http:

            async def post(path: str, body: dict[str, Any], key: str) -> httpx.Response:
                return await http.post(path, json=body, headers={"Authorization": f"Bearer {key}"})

            id = (await post(CHAT, ask(), alice)).headers["x-request-id"]
            vote = {"request_id": id, "value": True}
            statuses = [(await post("/v1/feedback", vote, key)).status_code for key in ("none", bob, alice, "owner")]
    assert statuses == [401, 404, 200, 200]
