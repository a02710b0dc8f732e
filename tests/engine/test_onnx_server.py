"""The pieces of the ONNX server: how a token is drawn, what text is certain, what a request may ask."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from llmbench.engine.onnx import asked
from llmbench.engine.onnx.answering import TokenWriter
from llmbench.engine.onnx.asked import ModelLimits, RefusedRequest, WantedAnswer
from llmbench.engine.onnx.sampler import TokenSampler, log_softmax
from llmbench.engine.onnx.text import AnswerText

LIMITS = ModelLimits(context=10, vocabulary=50)
LOGITS = np.log(np.asarray([0.5, 0.3, 0.15, 0.05], np.float32))


def shares(draws: int = 4000, **fields: Any) -> np.ndarray:
    """How often each of four tokens is drawn first."""
    wanted = [WantedAnswer((0,), 1, seed=i, **fields) for i in range(draws)]
    return np.bincount([TokenSampler(one, frozenset(), 0).draw(LOGITS) for one in wanted], minlength=4) / draws


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, [0.5, 0.3, 0.15, 0.05]),
        ({"temperature": 0.0}, [1, 0, 0, 0]),
        ({"temperature": 2.0}, np.sqrt([0.5, 0.3, 0.15, 0.05]) / np.sqrt([0.5, 0.3, 0.15, 0.05]).sum()),
        ({"top_k": 2}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.7}, [0.625, 0.375, 0, 0]),
        ({"top_p": 0.5}, [1, 0, 0, 0]),
        ({"min_p": 0.2}, np.asarray([0.5, 0.3, 0.15, 0]) / 0.95),
        ({"logit_bias": ((3, 100.0),)}, [0, 0, 0, 1]),
        ({"repetition_penalty": 1.5}, np.asarray([0.5**1.5, 0.3, 0.15, 0.05]) / (0.5**1.5 + 0.5)),
    ],
)
def test_tokens_are_drawn_with_the_chances_that_the_settings_mean(fields: dict[str, Any], wanted: Any) -> None:
    assert shares(**fields) == pytest.approx(wanted, abs=0.03)


def test_penalties_count_what_was_written() -> None:
    sampler = TokenSampler(WantedAnswer((0,), 5, temperature=0, frequency_penalty=0.4), frozenset(), 0)
    assert [sampler.draw(LOGITS) for _ in range(5)] == [0, 0, 1, 0, 1]


def test_no_token_ends_an_answer_that_must_be_longer() -> None:
    sampler = TokenSampler(WantedAnswer((0,), 5, temperature=0, least=2), frozenset({0}), 0)
    assert [sampler.draw(LOGITS) for _ in range(3)] == [1, 1, 0]


def test_log_probabilities_add_up_to_one() -> None:
    assert np.exp(log_softmax(np.asarray([[1e4, 1e4 - 1], [0.0, -1e4]]))).sum(axis=-1) == pytest.approx([1, 1])


def written(pieces: list[bytes], stop: list[str]) -> tuple[list[str], str | None]:
    def decode(ids: list[int]) -> str:
        return b"".join(pieces[i] for i in ids).decode("utf-8", "replace")

    text, found = AnswerText(decode, stop), []
    for i in range(len(pieces)):
        found.append(text.add(i))
        if text.stopped:
            break
    return [*found, text.finish()], text.stopped


def test_a_character_is_given_whole_and_a_stop_never() -> None:
    euro = "€".encode()
    assert written([b"a", euro[:1], euro[1:], b"b"], []) == (["a", "", "€", "b", ""], None)
    assert written([b"Hi E", b"N", b"x"], ["END"]) == (["Hi ", "", "ENx", ""], None)
    assert written([b"Hi E", b"N", b"D more"], ["END"]) == (["Hi ", "", "", ""], "END")
    assert written([b"Hi E"], ["END"]) == (["Hi ", "E"], None)
    assert written([b"abcd"], ["cd", "bc"]) == (["a", ""], "bc")
    assert written([euro[:2]], []) == (["", "\ufffd"], None)


def test_fields_of_chats_and_completions_come_under_one_name() -> None:
    def tokens(messages: list[dict[str, Any]], variables: dict[str, Any]) -> list[int]:
        return [1, 2, 3]

    body = {"messages": [{"role": "user", "content": "x"}], "max_completion_tokens": 5, "logprobs": True, "n": 2, "top_k": -1}
    found = asked.chat(body, tokens, LIMITS)
    assert (found.ids, found.most, found.count, found.logprobs, found.top_k) == ((1, 2, 3), 5, 2, 0, 0)
    assert asked.chat({"messages": body["messages"]}, tokens, LIMITS).most == 7
    two = asked.completion(
        {"prompt": [[1], [2, 3]], "stop": "a", "stop_token_ids": [4], "max_tokens": 5}, lambda text: [9], LIMITS
    )
    assert [one.ids for one in two] == [(1,), (2, 3)] and two[0].stop == ("a",) and two[0].stop_ids == {4}


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"temperature": 3}, "temperature"), ({"temperature": True}, "temperature"), ({"n": 0}, "n"), ({"stop": [""]}, "stop"),
        ({"tools": []}, "tools"), ({"max_tokens": 8}, "max_tokens"), ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"guided_json": {}}, "guided_json"), ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"messages": []}, "messages"), ({"logit_bias": {"50": 1}}, "logit_bias"), ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias"), ({"logit_bias": {"1": 10**400}}, "logit_bias"),
        ({"stop_token_ids": [50]}, "stop_token_ids"), ({"stop_token_ids": [True]}, "stop_token_ids"),
        ({"stream_options": ["include_usage"]}, "stream_options"), ({"stream": "yes"}, "stream"), ({"logprobs": 1}, "logprobs"),
        ({"chat_template_kwargs": [1]}, "chat_template_kwargs"), ({"min_tokens": 6, "max_tokens": 5}, "min_tokens"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"), ({"temperature": float("nan")}, "temperature"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(more: dict[str, Any], param: str) -> None:
    with pytest.raises(RefusedRequest) as refused:
        asked.chat({"messages": [{"role": "user", "content": "x"}]} | more, lambda *_: [1, 2, 3], LIMITS)
    assert refused.value.param == param


@pytest.mark.parametrize("prompt", [[50], [-1], [True], [[1], [50]], [], "", None, [None], {"a": 1}, [[]]])
def test_a_prompt_of_no_known_tokens_is_refused(prompt: Any) -> None:
    with pytest.raises(RefusedRequest) as refused:
        asked.completion({"prompt": prompt, "max_tokens": 5}, lambda text: [], LIMITS)
    assert refused.value.param == "prompt" and refused.value.status == 400


def test_a_missing_number_of_likeliest_tokens_is_none_and_a_large_bias_is_the_largest() -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": None, "stop": []}
    found = asked.chat(body | {"logit_bias": {"3": 1e9, "4": -1e9}}, lambda *_: [1], LIMITS)
    assert found.logprobs == 0 and found.logit_bias == ((3, 100.0), (4, -100.0)) and found.stop == ()


def test_a_stop_that_the_model_cannot_write_ends_nothing() -> None:
    sampler = TokenSampler(WantedAnswer((0,), 5, temperature=0, least=2), frozenset({0, 900}), 0)
    assert sampler.draw(LOGITS) == 1


def test_the_first_word_keeps_its_blank() -> None:
    """SentencePiece's decoder drops the blank of whatever comes first."""
    words = ["▁The", "▁fee", "▁is", "▁3"]

    def decode(ids: list[int]) -> str:
        return "".join(words[i] for i in ids).replace("▁", " ").removeprefix(" ")

    text = AnswerText(decode, (), before=(0, 1))
    assert [text.add(2), text.add(3), text.finish()] == [" is", " 3", ""]


class Counting:
    """A model whose logits after a token are highest at the next one, and that notes how many tokens it reads at once."""

    stops: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def start(self) -> list[Any]:
        return [np.zeros((1, 1, 0, 1), np.float32)]

    def read(self, ids: Any, cache: list[Any]) -> tuple[Any, list[Any]]:
        self.sizes.append(len(ids))
        logits = np.zeros((len(ids), 1000), np.float32)
        logits[np.arange(len(ids)), np.asarray(ids) + 1] = 5
        return logits, [np.concatenate([cache[0], np.zeros((1, 1, len(ids), 1), np.float32)], axis=2)]


def test_a_long_prompt_is_read_in_pieces_and_each_token_is_told_once() -> None:
    model = Counting()
    writer = TokenWriter(cast("Any", model), None, 1)
    told, last, cache = asyncio.run(writer.prompt(WantedAnswer(tuple(range(600)), 1, prompt_logprobs=1)))
    writer.close()
    assert max(model.sizes) <= 256 and cache[0].shape[2] == 600 and int(last.argmax()) == 600
    assert told[0] is None and [one.token for one in told[1:] if one] == list(range(1, 600))
    assert all(one.likeliest[0][0] == one.token for one in told[1:] if one)


def test_what_asks_for_nothing_is_passed_over_and_a_range_is_told_in_words() -> None:
    body = {"messages": [{"role": "user", "content": "x"}]}
    assert asked.chat(body | {"response_format": {"type": "text"}, "tool_choice": "none"}, lambda *_: [1], LIMITS).most == 9
    for more, said in (
        ({"max_tokens": -1}, "from 0 to 2,147,483,648"), ({"repetition_penalty": 0}, "a number above 0$"),
        ({"top_p": 0}, "above 0 and at most 1"), ({"temperature": 3}, "from 0 to 2$"),
    ):  # fmt: skip
        with pytest.raises(RefusedRequest, match=said):
            asked.chat(body | more, lambda *_: [1], LIMITS)
