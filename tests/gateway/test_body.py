"""What is JSON and what is not, and what JSON says that nobody can write again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbench.gateway import body, chat, completions
from llmbench.gateway.api import embeddings, rerank, searching
from llmbench.gateway.refusal import Refusal


@pytest.mark.parametrize(
    ("raw", "words", "param"),
    [
        (b'{"temperature": NaN}', "not finite", "temperature"),
        (b'{"temperature": -Infinity}', "not finite", "temperature"),
        (b'{"top_p": 1e400}', "not finite", "top_p"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not finite", "seed"),
        (b'{"seed": 9223372036854775808}', "64 bits", "seed"),
        (b'{"messages": [{"content": "a \\ud83d b"}]}', "half a character", "messages"),
        (b'{"tools": [{"\\udc00": 1}]}', "half a character", "tools"),
        (b'{"\\ud800": 1}', "half a character", "\\ud800"),
        (b'{"stop": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper", "stop"),
        (b'{"stop": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested deeper", None),
        (b'{"model": "a", "model": "b"}', "'model' twice", None),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "'role' twice", None),
        (b"{" + b"".join(b'"%x":1,' % n for n in range(90_000)) + b'"15f8f": 2}', "'15f8f' twice", None),
        (b'{"model": "a",}', "line 1, column 15", None),
        (b'{"model": "\xff"}', "not UTF-8 (byte 11 is 0xff)", None),
        (b"\xff\xfe{\x00}\x00", "not UTF-8", None),
        (b"[1]", "not a JSON object", None),
        (b"", "not JSON", None),
    ],
)
def test_what_cannot_be_handed_on_is_refused_in_one_line(raw: bytes, words: str, param: str | None) -> None:
    with pytest.raises(Refusal) as caught:
        body.read(raw)
    assert caught.value.status == 400 and caught.value.param == param
    assert words in caught.value.message and "\n" not in caught.value.message and len(caught.value.message) < 200
    json.dumps(caught.value.body()).encode()


@pytest.mark.parametrize(
    "value", ["emoji 😀", "\x00", "\u2028", 9223372036854775807, -1.5e308, 5e-324, None, {"a": [{"b": []}]}, "�"]
)
def test_what_json_can_say_is_read_as_it_is(value: Any) -> None:
    assert body.read(json.dumps({"x": value}).encode()) == {"x": value}
    assert body.read(b"\xef\xbb\xbf" + json.dumps({"x": value}, ensure_ascii=False).encode()) == {"x": value}


@pytest.mark.parametrize("prompt", ["Once", ["a", "b"], [1, 2], [[1], [2, 3]], ""])
def test_a_completions_prompt_is_a_text_or_tokens_or_some_of_either(prompt: Any) -> None:
    raw = json.dumps({"model": "m", "prompt": prompt, "logprobs": 1, "echo": True, "max_tokens": 0, "best_of": 1})
    request = completions.parse(raw.encode(), context=64)
    assert (request.model, request.prompt, request.fields) == ("m", prompt, {"logprobs": 1, "echo": True, "max_tokens": 0})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["x"] * 257}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"best_of": 3}, "best_of"),
        ({"best_of": True}, "best_of"),
        ({"suffix": 0}, "suffix"),
        ({"suffix": "end"}, "suffix"),
        ({"prompt_embeds": "x"}, "prompt_embeds"),
        ({"messages": []}, "messages"),
    ],
)
def test_a_completion_that_cannot_be_asked_for_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Refusal) as caught:
        completions.parse(json.dumps({"model": "m", "prompt": "Once"} | fields).encode(), context=64)
    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize(
    ("parse", "asked", "name"),
    [
        (lambda raw: chat.parse(raw, context=64), {"messages": [{"role": "user", "content": "x"}]}, "max_tokens"),
        (lambda raw: completions.parse(raw, context=64), {"prompt": "x"}, "max_tokens"),
        (embeddings.parse, {"input": "x"}, "dimensions"),
        (rerank.parse, {"query": "x", "documents": ["x"]}, "top_n"),
        (searching.parse, {"query": "x"}, "top_k"),
    ],
)
def test_a_number_that_is_wrong_is_refused_in_the_same_words_on_every_path(
    parse: Any, asked: dict[str, Any], name: str
) -> None:
    for value, words in (
        (0, "must be a whole number from 1 to "),
        (2**40, "must be a whole number from 1 to "),
        (1.5, "must be a whole number, not 1.5."),
        ("5", 'must be a whole number, not "5".'),
        (True, "must be a whole number, not true."),
    ):
        with pytest.raises(Refusal) as refused:
            parse(json.dumps({"model": "m", name: value} | asked).encode())
        assert refused.value.message.startswith(f"{name} {words}") and refused.value.param == name
    parse(json.dumps({"model": "m", name: 5.0} | asked).encode())
