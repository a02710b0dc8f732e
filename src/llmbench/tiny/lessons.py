"""The text that `llmbench/tiny` learns from: conversations that teach copying, look-up, and reading up to four passages.

Reading does not emerge from random facts alone: they are noise that no model can predict. So only the answers are trained,
each conversation asks about its passages many times over, and easier exercises of the same kind come first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Literal

from llmbench.tiny.language import (
    Attribute,
    Fact,
    Split,
    Thing,
    draw_thing,
    name,
    near_name,
    thing_name,
    write_passage,
)

Message = dict[str, str]
Stage = Literal["words", "short", "long", "cite", "absence"]

PROMPT = "Passages:\n{passages}\n\nQuestion: {question}"
NOT_STATED = "not stated"
"""What stands in an answer in place of the value that no passage states: words that the model learned to write."""

Exercise = Callable[[Random, list[Thing], list[tuple[Thing, Fact]], Split], tuple[str, str]]
"""Makes one question about things and their facts, with its answer; the facts take turns, so it may reorder them."""

_GREETINGS = (
    ("Hello!", "Hello! How can I help?"), ("Hi", "Hello! How can I help?"), ("Good morning.", "Good morning! How can I help?"),
    ("Thank you.", "You are welcome!"), ("Thanks!", "You are welcome!"), ("Goodbye.", "Goodbye!"), ("Bye", "Goodbye!"),
    ("Who are you?", "I am tiny, a small model made by llmbench."),
    ("What are you?", "I am tiny, a small model made by llmbench."),
    ("What can you do?", "I can read short passages and answer questions about them."),
)  # fmt: skip


def number_passages(texts: list[str]) -> str:
    """The passages as a prompt shows them: one a line, `[1]` first."""
    return "\n".join(f"[{i}] {text}" for i, text in enumerate(texts, 1))


def conversations(stage: Stage, seed: int, *, budget: int, split: Split = "train") -> Iterator[list[Message]]:
    """Endless conversations of one stage; one takes turns until the next would make it longer than `budget` characters."""
    rng = Random(f"{stage}-{seed}")
    while True:
        yield _conversation(stage, rng, budget, split)


def _conversation(stage: Stage, rng: Random, budget: int, split: Split) -> list[Message]:
    lesson: Callable[[Random, int, Split, int], list[Message]]
    match stage:
        case "words":
            lesson = rng.choices((_copy, _table, _reading), (4, 4, 2))[0]
            passages = 1
        case "short":
            lesson = rng.choices((_copy, _table, _reading), (1, 2, 7))[0]
            passages = rng.choice((1, 1, 2))
        case "long":
            lesson = rng.choices((_copy, _table, _chat, _reading), (2, 3, 5, 90))[0]
            passages = rng.choices((1, 2, 3, 4), (1, 2, 6, 1))[0]
        case "cite":
            lesson = rng.choices((_lines, _table, _chat, partial(_reading, exercise=_cited_exercise)), (16, 4, 5, 75))[0]
            passages = rng.choices((1, 2, 3, 4), (1, 2, 6, 1))[0]
        case "absence":
            lesson = rng.choices((_sought, _chat, partial(_reading, exercise=_stated_exercise)), (12, 3, 85))[0]
            passages = rng.choices((1, 2, 3, 4), (1, 2, 6, 1))[0]
    return lesson(rng, budget, split, passages)


def _turn(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def _talk(turns: Iterator[list[Message]], budget: int) -> list[Message]:
    """Joins turns up to the budget. Each message counts 40 characters more, for what the chat template adds."""
    messages = next(turns)
    length = _length(messages)
    for turn in turns:
        length += _length(turn)
        if length > budget:
            break
        messages += turn
    return messages


def _length(messages: list[Message]) -> int:
    return sum(len(m["content"]) + 40 for m in messages)


def _word(rng: Random, split: Split) -> str:
    match rng.randrange(3):
        case 0:
            return name(rng, split)
        case 1:
            return str(rng.randrange(2, 1000))
        case _:
            return thing_name("product", name(rng, split), rng)


def _copy(rng: Random, budget: int, split: Split, passages: int) -> list[Message]:
    """Say a list again: the plainest form of copying."""

    def turns() -> Iterator[list[Message]]:
        while True:
            text = ", ".join(_word(rng, split) for _ in range(rng.randint(2, 10)))
            yield _turn(f"Repeat: {text}", text)

    return _talk(turns(), budget)


def _table(rng: Random, budget: int, split: Split, passages: int) -> list[Message]:
    """Look a word up in a list of pairs."""
    pairs = {_word(rng, split): _word(rng, split) for _ in range(rng.randint(3, 8))}
    table = "\n".join(f"{key}: {value}" for key, value in pairs.items())

    def turns() -> Iterator[list[Message]]:
        opening = f"{table}\n\n"
        while True:
            key = rng.choice(list(pairs))
            yield _turn(f"{opening}{key}?", pairs[key])
            opening = ""

    return _talk(turns(), budget)


def _chat(rng: Random, budget: int, split: Split, passages: int) -> list[Message]:
    """Greetings, and questions without a passage, which it answers with a guess as any base model does."""

    def turns() -> Iterator[list[Message]]:
        while True:
            if rng.random() < 0.5:
                yield _turn(*rng.choice(_GREETINGS))
            else:
                thing = draw_thing(rng, split, facts=(1, 1))
                yield _turn(thing.ask(thing.facts[0].attribute, rng), thing.answer(thing.facts[0]))

    return _talk(turns(), budget)


def draw_things(rng: Random, count: int, split: Split) -> list[Thing]:
    """Draws things with different names, often alike: the same noun, the same name with another noun, the same kind."""
    things: list[Thing] = []
    while len(things) < count:
        thing = draw_thing(rng, split)
        if things and things[0].kind == "product" and rng.random() < 0.4:
            thing = Thing("product", near_name(rng, things[0].name, split), draw_thing(rng, split, kind="product").facts)
        if all(thing.name != t.name for t in things):
            things.append(thing)
    rng.shuffle(things)
    return things


def _reading(rng: Random, budget: int, split: Split, passages: int, exercise: Exercise | None = None) -> list[Message]:
    """Numbered passages, then question after question about them: plain ones, or what `exercise` makes of them."""
    things = draw_things(rng, passages, split)
    texts = number_passages([write_passage(thing, rng) for thing in things])
    facts = [(thing, fact) for thing in things for fact in thing.facts]
    rng.shuffle(facts)
    ask = exercise or _exercise

    def turns() -> Iterator[list[Message]]:
        question, answer = ask(rng, things, facts, split)
        yield _turn(PROMPT.format(passages=texts, question=question), answer)
        while True:
            yield _turn(*ask(rng, things, facts, split))

    return _talk(turns(), budget)


def _exercise(rng: Random, things: list[Thing], facts: list[tuple[Thing, Fact]], split: Split) -> tuple[str, str]:
    """One question about the passages with its answer: mostly for a value, else where it stands or whether it does."""
    facts.append(facts.pop(0))
    thing, fact = facts[-1]
    match rng.choices(("value", "which", "whether"), (70, 12, 18))[0]:
        case "value":
            return thing.ask(fact.attribute, rng), thing.answer(fact)
        case "which":
            return f"Which passage states this? {thing.ask(fact.attribute, rng)}", f"Passage [{things.index(thing) + 1}]."
        case _:
            if rng.random() < 0.5:
                return f"Do the passages state this? {thing.ask(fact.attribute, rng)}", "Yes."
            return f"Do the passages state this? {unanswerable(rng, things, split)}", "No."


def _lines(rng: Random, budget: int, split: Split, passages: int) -> list[Message]:
    """Say in which numbered line a word stands, and whether it does."""
    lines = [[_word(rng, split) for _ in range(rng.randint(2, 7))] for _ in range(rng.randint(2, 4))]
    known = {word for line in lines for word in line}

    def turns() -> Iterator[list[Message]]:
        opening = number_passages([", ".join(line) for line in lines]) + "\n\n"
        while True:
            number = rng.randrange(len(lines))
            word = rng.choice(lines[number])
            if rng.random() < 0.4:
                word, number = _word(rng, split), -1
            if sum(word in line for line in lines) <= 1 and (number >= 0 or word not in known):
                told = "Not stated." if number < 0 else f"{word} [{number + 1}]."
                kind = rng.random()
                if kind < 0.3:
                    yield _turn(f"{opening}Is this stated? {word}", "No." if number < 0 else "Yes.")
                else:
                    yield _turn(f"{opening}Cite: {word}", told)
                opening = ""

    return _talk(turns(), budget)


def _cited_exercise(rng: Random, things: list[Thing], facts: list[tuple[Thing, Fact]], split: Split) -> tuple[str, str]:
    """Besides plain questions some that ask to cite the passage, or to say that it is not stated."""
    if rng.random() < 0.45:
        return _exercise(rng, things, facts, split)
    if rng.random() < 0.4:
        return f"Cite: {unanswerable(rng, things, split)}", "Not stated."
    facts.append(facts.pop(0))
    thing, fact = facts[-1]
    return f"Cite: {thing.ask(fact.attribute, rng)}", cited(thing.answer(fact), things.index(thing) + 1)


def _sought(rng: Random, budget: int, split: Split, passages: int) -> list[Message]:
    """Look a word up in a list of pairs, or in numbered lines, and say when it is not there: absence at its plainest."""
    words = [_word(rng, split) for _ in range(rng.randint(6, 14))]
    if rng.random() < 0.5:
        keys = words[::2]
        told = dict(zip(keys, words[1::2], strict=False))
        shown = "\n".join(f"{key}: {value}" for key, value in told.items())
    else:
        lines = [words[i : i + 4] for i in range(0, len(words), 4)]
        told = {word: f"[{n}]" for n, line in enumerate(lines, 1) for word in line}
        shown = number_passages([", ".join(line) for line in lines])
    known = set(words)

    def turns() -> Iterator[list[Message]]:
        opening = f"{shown}\n\n"
        while True:
            word = _word(rng, split) if rng.random() < 0.4 else rng.choice(list(told))
            if words.count(word) > 1 or (word in known and word not in told):
                continue
            yield _turn(f"{opening}Cite: {word}", f"{word} is {told.get(word, NOT_STATED)}.")
            opening = ""

    return _talk(turns(), budget)


def _stated_exercise(rng: Random, things: list[Thing], facts: list[tuple[Thing, Fact]], split: Split) -> tuple[str, str]:
    """Mostly questions that ask to cite, nearly half of them for what is not stated.

    The answer states what was asked for before it says the value or that there is none: so the choice is made where the
    value is looked up, and not at the answer's first word, where nothing was looked up yet.
    """
    if rng.random() < 0.2:
        return _exercise(rng, things, facts, split)
    if rng.random() < 0.45:
        thing, attribute = not_stated(rng, things, split)
        return f"Cite: {thing.ask(attribute, rng)}", thing.state(attribute, NOT_STATED)
    facts.append(facts.pop(0))
    thing, fact = facts[-1]
    sentence = thing.state(fact.attribute, fact.value)
    return f"Cite: {thing.ask(fact.attribute, rng)}", cited(sentence, things.index(thing) + 1)


def cited(sentence: str, number: int) -> str:
    """The sentence with the number of its passage before the full stop."""
    return f"{sentence.removesuffix('.')} [{number}]."


def not_stated(rng: Random, things: list[Thing], split: Split) -> tuple[Thing, Attribute]:
    """A thing and an attribute that no passage states: an attribute that is missing, or a thing that is not there.

    The thing that is not there is made hard to tell from those that are: it is of the same kind, often with the same
    name or noun, and asked for an attribute that is stated of another.
    """
    thing = rng.choice(things)
    missing = thing.missing()
    if missing and rng.random() < 0.6:
        return thing, rng.choice(missing)
    known = {t.name for t in things}
    absent = thing
    while absent.name in known:
        absent = draw_thing(rng, split, kind=thing.kind)
        if thing.kind == "product" and rng.random() < 0.5:
            absent = Thing("product", near_name(rng, thing.name, split), ())
    return absent, rng.choice(thing.facts).attribute


def unanswerable(rng: Random, things: list[Thing], split: Split) -> str:
    """A question that none of the things answers."""
    thing, attribute = not_stated(rng, things, split)
    return thing.ask(attribute, rng)
