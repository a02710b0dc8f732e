"""Judged answers about invented worlds, for the methods that learn from them: pairs, marked answers, and prompts.

A good answer says what the passage says and cites it. A bad one cites nothing, takes the value from another passage, cites
another passage, or says that what is told is not stated.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

from llmbench.tiny.handbook import draw_alike
from llmbench.tiny.language import Attribute, Fact, Thing, draw_thing, write_passage
from llmbench.tiny.lessons import NOT_STATED, PROMPT, cited, number_passages

__all__ = ["prompts", "rows", "write"]

SEED = 2027
ROWS = 96


def rows(count: int = ROWS, seed: int = SEED) -> list[dict[str, str]]:
    """Rows of `prompt`, a good and a bad answer, and what kind of bad it is."""
    rng = Random(f"judgements-{seed}")
    made: list[dict[str, str]] = []
    while len(made) < count:
        things = draw_alike(rng, rng.choice((2, 3)), "train")
        asked = rng.choice(things)
        fact = rng.choice(asked.facts)
        other = next((f.value for t in things if t is not asked for f in t.facts if f.attribute == fact.attribute), None)
        if other == fact.value:
            continue
        passages = number_passages([write_passage(thing, rng) for thing in things])
        number = things.index(asked) + 1
        kinds = ["no citation", "another citation", "not stated"] + ["another value"] * (other is not None)
        kind = kinds[len(made) % len(kinds)]
        good = cited(asked.state(fact.attribute, fact.value), number)
        made.append(
            {
                "prompt": PROMPT.format(passages=passages, question=asked.ask_as_customer(fact.attribute, rng)),
                "good": good,
                "bad": _bad(kind, asked, fact.attribute, fact, other, number, len(things)),
                "kind": kind,
            }
        )
    return made


def prompts(count: int = ROWS, seed: int = SEED) -> list[dict[str, str]]:
    """Questions without a passage, and the only true answer to them: that it is not stated."""
    rng = Random(f"prompts-{seed}")
    made: list[dict[str, str]] = []
    for _ in range(count):
        thing = draw_thing(rng, "train")
        attribute = rng.choice(thing.facts).attribute
        made.append({"prompt": thing.ask_as_customer(attribute, rng), "answer": thing.state(attribute, NOT_STATED)})
    return made


def _bad(kind: str, thing: Thing, attribute: Attribute, fact: Fact, other: str | None, number: int, passages: int) -> str:
    match kind:
        case "no citation":
            return thing.state(attribute, fact.value)
        case "another citation":
            return cited(thing.state(attribute, fact.value), number % passages + 1)
        case "another value" if other is not None:
            return cited(thing.state(attribute, other), number)
    return thing.state(attribute, NOT_STATED)


def write(folder: Path, seed: int = SEED) -> None:
    """Writes pairs.jsonl (dpo, orpo, reward), marked.jsonl (kto) and prompts.jsonl (grpo) into a folder."""
    made = rows(seed=seed)
    folder.mkdir(parents=True, exist_ok=True)
    _jsonl(folder / "pairs.jsonl", [{"prompt": r["prompt"], "chosen": r["good"], "rejected": r["bad"]} for r in made])
    marked = [
        {"prompt": r["prompt"], "completion": r["good"] if i % 2 else r["bad"], "label": bool(i % 2)}
        for i, r in enumerate(made)
    ]
    _jsonl(folder / "marked.jsonl", marked)
    _jsonl(folder / "prompts.jsonl", prompts(seed=seed))


def _jsonl(path: Path, made: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
