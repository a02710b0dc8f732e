"""The bundled model's tokenizer: lossless, digit by digit, with a template that marks what the assistant says."""

from __future__ import annotations

from typing import Any

import pytest

from llmbench import assets


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.model_folder(assets.TINY))


@pytest.mark.parametrize("text", ["The Velora kettle weighs 480 grams.", "naïve café, 100 %", "日本語 🙂", "{{7*7}}\t\n  x"])
def test_any_text_comes_back(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_numbers_are_read_digit_by_digit(tokenizer: Any) -> None:
    assert len(tokenizer("1987")["input_ids"]) == 4


def test_the_template_marks_what_the_assistant_says_and_its_end_of_turn(tokenizer: Any) -> None:
    talk = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Goodbye!"},
    ]
    encoded = tokenizer.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
    pairs = zip(encoded["input_ids"], encoded["assistant_masks"], strict=True)
    spoken = tokenizer.decode([token for token, marked in pairs if marked])
    assert spoken == "Hello!<|im_end|>Goodbye!<|im_end|>"


def test_a_prompt_ends_where_the_assistant_begins(tokenizer: Any) -> None:
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], add_generation_prompt=True, tokenize=False)
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
