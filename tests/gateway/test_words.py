"""Whether the served tokenizer really reads no control token out of split words is tried out at the start."""

from __future__ import annotations

from llmbench.errors import EngineError
from llmbench.gateway.words import proven
from llmbench.recipe import ServeRecipe

RECIPE = ServeRecipe.model_validate({"variants": [{"name": "m"}]})


def reads(*dropped: str) -> object:
    """A tokenizer of characters that drops some and has the bundled model's control tokens 0, 1 and 2."""

    def read(text: str) -> list[int]:
        for character in dropped:
            text = text.replace(character, "")
        for number, name in enumerate(("<|endoftext|>", "<|im_start|>", "<|im_end|>")):
            text = text.replace(name, chr(number))
        return [ord(character) for character in text]

    return read


def test_the_first_character_that_the_tokenizer_keeps_is_used() -> None:
    for dropped, joiner in (((), "\u2060"), (("\u2060",), "\u200b"), (("\u2060", "\u200b"), " ")):
        said: list[str] = []
        words = proven(RECIPE, reads(*dropped), said.append)  # type: ignore[arg-type]
        assert words.tokens.joiner == joiner and said == []


def test_what_cannot_be_proven_is_told() -> None:
    def silent(_: str) -> list[int]:
        raise EngineError("vLLM does not say")

    for read, reason in ((reads("\u2060", "\u200b", " "), "even when they are split"), (silent, "does not say")):
        said: list[str] = []
        words = proven(RECIPE, read, said.append)  # type: ignore[arg-type]
        assert reason in said[0] and "llmbench/tiny" in said[0]
        assert words.tokens.split("<|im_end|>") == "<\u2060|im_end|>"
