"""Can llmbench/tiny read? Freshly drawn names that no training saw, greedy answers, the share with the right value.

    python benchmarks/tiny_reading.py [--model FOLDER] [--cases 500] [--seed N]

Prints one Markdown table: cases, right value with its 95 % Wilson interval, whole sentence right, turns that end.
"""

from __future__ import annotations

import argparse
import platform
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from scipy.stats import binomtest
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmbench import assets
from llmbench.tiny.language import write_passage
from llmbench.tiny.lessons import NOT_STATED, PROMPT, cited, draw_things, not_stated, number_passages

BATCH = 50


@dataclass(frozen=True)
class Case:
    """A prompt, the value its answer must contain, and the whole sentence."""

    prompt: str
    value: str
    answer: str


def reading(rng: Random, passages: int) -> Case:
    """A question for one fact in one of several passages."""
    things = draw_things(rng, passages, "held_out")
    texts = number_passages([write_passage(thing, rng) for thing in things])
    thing = rng.choice(things)
    fact = rng.choice(thing.facts)
    return Case(PROMPT.format(passages=texts, question=thing.ask(fact.attribute, rng)), fact.value, thing.answer(fact))


def cite(rng: Random, told: bool) -> Case:
    """A question about three passages that asks to cite: for a fact that they tell, or for one that they do not."""
    things = draw_things(rng, 3, "held_out")
    texts = number_passages([write_passage(thing, rng) for thing in things])
    if told:
        thing = rng.choice(things)
        fact = rng.choice(thing.facts)
        attribute, value = fact.attribute, fact.value
        answer = cited(thing.state(attribute, value), things.index(thing) + 1)
    else:
        thing, attribute = not_stated(rng, things, "held_out")
        value, answer = NOT_STATED, thing.state(attribute, NOT_STATED)
    return Case(PROMPT.format(passages=texts, question=f"Cite: {thing.ask(attribute, rng)}"), value, answer)


def which(rng: Random) -> Case:
    """Which of three passages states something."""
    things = draw_things(rng, 3, "held_out")
    texts = number_passages([write_passage(thing, rng) for thing in things])
    thing = rng.choice(things)
    ask = thing.ask(rng.choice(thing.facts).attribute, rng)
    number = f"[{things.index(thing) + 1}]"
    return Case(PROMPT.format(passages=texts, question=f"Which passage states this? {ask}"), number, f"Passage {number}.")


def answers(model: Any, tokenizer: Any, prompts: list[str]) -> list[tuple[str, bool]]:
    """The greedy answer to each prompt, and whether the model ended its turn by itself."""
    found = []
    for i in range(0, len(prompts), BATCH):
        chats = [[{"role": "user", "content": prompt}] for prompt in prompts[i : i + BATCH]]
        inputs = tokenizer.apply_chat_template(
            chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
        )
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
        for row in output[:, inputs["input_ids"].shape[1] :]:
            found.append((tokenizer.decode(row, skip_special_tokens=True), tokenizer.eos_token_id in row.tolist()))
    return found


def main() -> None:
    """Runs every exercise and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default=assets.TINY)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=2026)
    options = parser.parse_args()
    folder = assets.model_folder(options.model)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    tokenizer.padding_side = "left"  # so that every prompt ends where its answer begins
    exercises: dict[str, Callable[[Random], Case]] = {
        "value, 1 passage": lambda rng: reading(rng, 1),
        "value, 2 passages": lambda rng: reading(rng, 2),
        "**value, 3 passages**": lambda rng: reading(rng, 3),
        "value, 4 passages": lambda rng: reading(rng, 4),
        "which of 3 passages": which,
        "asked to cite what 3 passages state": lambda rng: cite(rng, True),
        "asked to cite what 3 passages do not state": lambda rng: cite(rng, False),
    }
    print(f"{options.model}, {platform.processor() or platform.machine()}, torch {torch.__version__}, seed {options.seed}\n")
    print("| exercise | cases | right | 95 % interval | whole answer right | turn ended | seconds |")
    print("|---|---|---|---|---|---|---|")
    for label, draw in exercises.items():
        rng = Random(f"{options.seed}-{label}")
        cases = [draw(rng) for _ in range(options.cases)]
        start = time.perf_counter()
        given = answers(model, tokenizer, [case.prompt for case in cases])
        seconds = time.perf_counter() - start
        right = sum(
            re.search(rf"(?<!\w){re.escape(case.value)}(?!\w)", text) is not None
            for case, (text, _) in zip(cases, given, strict=True)
        )
        whole = sum(case.answer == text for case, (text, _) in zip(cases, given, strict=True))
        ended = sum(stop for _, stop in given)
        low, high = binomtest(right, len(cases)).proportion_ci(method="wilson")
        shares = " | ".join(f"{count / len(cases):.1%}" for count in (whole, ended))
        print(f"| {label} | {len(cases)} | {right / len(cases):.1%} | {low:.1%} to {high:.1%} | {shares} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
