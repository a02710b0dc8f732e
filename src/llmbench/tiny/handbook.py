"""Writes the sample world: the handbook of an invented maker, questions about it, and the adapter's training rows.

Every product, plan and shop has a name that the base model never met. Pages are split into train, dev and test; the
adapter learns from train pages and from other invented worlds, and is asked about test pages.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from llmbench.tiny.language import (
    ATTRIBUTES,
    POLICY_NOUNS,
    PRODUCT_NOUNS,
    Attribute,
    Fact,
    Kind,
    Split,
    Thing,
    draw_thing,
    name,
    near_name,
    write_passage,
)
from llmbench.tiny.lessons import NOT_STATED, PROMPT, cited, not_stated, number_passages

__all__ = ["Page", "adapter_rows", "draw_alike", "draw_pages", "questions", "write"]

SEED = 2026
PRODUCTS, PLANS, SHOPS, POLICIES = 38, 10, 10, 12
QUESTIONS_A_PAGE = 4
ABSENT = 24
DRAWN = 2000
ABSTAINED = 0.35
SPLITS = ("train", "test", "train", "test", "dev", "train", "test", "train", "test", "train")
FORMATS = ("md", "md", "md", "html", "md", "md", "pdf")


@dataclass(frozen=True)
class Page:
    """One page of the handbook: a thing, its text, its file and its split."""

    thing: Thing
    text: str
    path: str
    split: str

    @property
    def title(self) -> str:
        """The heading: the thing's name with a capital letter."""
        return self.thing.name[0].upper() + self.thing.name[1:]


def draw_pages(seed: int = SEED) -> list[Page]:
    """The handbook's pages; the same seed draws the same ones."""
    rng = Random(f"handbook-{seed}")
    things: list[Thing] = []
    words = _names(rng, 14)
    for i in range(PRODUCTS):
        # Few names over many nouns: a search that only matches the name finds the wrong page.
        word = words[i % len(words)]
        taken = {t.name for t in things}
        nouns = [noun for noun in PRODUCT_NOUNS if f"{word} {noun}" not in taken]
        things.append(_thing(rng, "product", f"{word} {rng.choice(nouns)}"))
    things += [_thing(rng, "plan", f"{word} plan") for word in _names(rng, PLANS)]
    things += [_thing(rng, "shop", f"{word} shop") for word in _names(rng, SHOPS)]
    things += [_thing(rng, "policy", f"{noun} policy") for noun in rng.sample(POLICY_NOUNS, POLICIES)]
    pages = []
    for i, thing in enumerate(things):
        folder = {"product": "products", "plan": "plans", "shop": "shops", "policy": "policies"}[thing.kind]
        file = f"{folder}/{thing.name.lower().replace(' ', '-')}.{FORMATS[i % len(FORMATS)]}"
        pages.append(Page(thing, write_passage(thing, rng), file, SPLITS[i % len(SPLITS)]))
    return pages


def _names(rng: Random, number: int) -> list[str]:
    found: list[str] = []
    while len(found) < number:
        word = name(rng, "held_out")
        if word not in found:
            found.append(word)
    return found


def _thing(rng: Random, kind: Kind, full_name: str) -> Thing:
    return Thing(kind, full_name, draw_thing(rng, "held_out", facts=(4, 5), kind=kind).facts)


def questions(pages: list[Page], seed: int = SEED) -> list[dict[str, Any]]:
    """The question file's rows: for every page some facts and one that it does not tell, then things that are not there."""
    rng = Random(f"questions-{seed}")
    rows: list[dict[str, Any]] = []
    number = count(1)

    def add(
        thing: Thing, attribute: Attribute, split: str, kind: str, page: Page | None = None, fact: Fact | None = None
    ) -> None:
        rows.append(
            {
                "id": f"q{next(number):03d}",
                "question": thing.ask_as_customer(attribute, rng),
                "answer": thing.state(attribute, fact.value if fact else NOT_STATED),
                "value": fact.value if fact else None,
                "source": page.path if page and fact else None,
                "answerable": fact is not None,
                "kind": kind,
                "split": split,
            }
        )

    for page in pages:
        for fact in rng.sample(page.thing.facts, QUESTIONS_A_PAGE):
            add(page.thing, fact.attribute, page.split, "fact", page, fact)
        add(page.thing, rng.choice(page.thing.missing()), page.split, "not stated")
    known = {page.thing.name for page in pages}
    for i in range(ABSENT):
        thing = draw_thing(rng, "held_out")
        while thing.name in known or thing.kind == "policy":
            thing = draw_thing(rng, "held_out")
        add(thing, rng.choice(ATTRIBUTES[thing.kind]), SPLITS[i % len(SPLITS)], "not there")
    return rows


def adapter_rows(pages: list[Page], seed: int = SEED, *, drawn: int = DRAWN) -> Iterator[dict[str, Any]]:
    """The adapter's training rows: passages and a question, answered in one sentence with its citation, or not at all.

    The train pages give one row a question; other worlds, drawn with the base model's training names, give the rest. The
    passages of a row are alike, as those are that a search finds.
    """
    rng = Random(f"adapter-{seed}")
    train = [page for page in pages if page.split == "train"]
    rows = []
    for row in questions(pages, seed):
        if row["split"] == "train":
            asked = next((page for page in train if page.thing.name in row["question"]), None)
            shown = _found(rng, train, asked)
            answer = cited(row["answer"], shown.index(asked) + 1) if asked and row["answerable"] else row["answer"]
            rows.append(_row([page.text for page in shown], row["question"], answer))
    for _ in range(drawn):
        things = draw_alike(rng, rng.choice((2, 3, 3, 3, 4)), "train")
        texts = [write_passage(thing, rng) for thing in things]
        if rng.random() < ABSTAINED:
            thing, attribute = not_stated(rng, things, "train")
            rows.append(_row(texts, thing.ask_as_customer(attribute, rng), thing.state(attribute, NOT_STATED)))
        else:
            thing = rng.choice(things)
            fact = rng.choice(thing.facts)
            answer = cited(thing.state(fact.attribute, fact.value), things.index(thing) + 1)
            rows.append(_row(texts, thing.ask_as_customer(fact.attribute, rng), answer))
    for _ in range(drawn // 12):
        thing = draw_thing(rng, "train")
        attribute = rng.choice(ATTRIBUTES[thing.kind])
        rows.append(_row([], thing.ask_as_customer(attribute, rng), thing.state(attribute, NOT_STATED)))
    rng.shuffle(rows)
    yield from rows


def _found(rng: Random, pages: list[Page], asked: Page | None) -> list[Page]:
    """Three pages as a search might find them: the one that is asked about, if there is one, and the two most like it."""
    about = asked or rng.choice(pages)
    words = set(about.thing.name.split())
    others = [page for page in pages if page is not about]
    rng.shuffle(others)
    others.sort(key=lambda page: (not words & set(page.thing.name.split()), page.thing.kind != about.thing.kind))
    shown = [about, *others[:2]]
    rng.shuffle(shown)
    return shown


def draw_alike(rng: Random, count: int, split: Split) -> list[Thing]:
    """Draws things of one kind with different names, as a search finds them: products share a noun or a name."""
    kind: Kind = rng.choices(("product", "plan", "shop", "policy"), (5, 3, 3, 3))[0]
    things = [draw_thing(rng, split, kind=kind)]
    while len(things) < count:
        thing = draw_thing(rng, split, kind=kind)
        if kind == "product" and rng.random() < 0.8:
            thing = Thing(kind, near_name(rng, things[0].name, split), thing.facts)
        if all(thing.name != t.name for t in things):
            things.append(thing)
    rng.shuffle(things)
    return things


def _row(texts: list[str], question: str, answer: str) -> dict[str, Any]:
    asked = PROMPT.format(passages=number_passages(texts), question=question) if texts else question
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}


def write(folder: Path, seed: int = SEED) -> None:
    """Writes `handbook/`, `questions.jsonl` and `train.jsonl` into a folder.

    PDF pages are written by fpdf2 with a fixed date, so that the same seed writes the same bytes.
    """
    pages = draw_pages(seed)
    for page in pages:
        path = folder / "handbook" / page.path
        path.parent.mkdir(parents=True, exist_ok=True)
        match path.suffix:
            case ".md":
                path.write_text(f"# {page.title}\n\n{page.text}\n", encoding="utf-8")
            case ".html":
                path.write_text(_html(page), encoding="utf-8")
            case ".pdf":
                path.write_bytes(_pdf(page))
    _jsonl(folder / "questions.jsonl", questions(pages, seed))
    _jsonl(folder / "train.jsonl", adapter_rows(pages, seed))


def _html(page: Page) -> str:
    title, text = html.escape(page.title), html.escape(page.text)
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>\n<h1>{title}</h1>\n<p>{text}</p>\n</body>\n</html>\n"
    )


def _pdf(page: Page) -> bytes:
    from datetime import UTC, datetime

    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_creation_date(datetime(2026, 1, 1, tzinfo=UTC))
    pdf.set_title(page.title)
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 18)
    pdf.multi_cell(0, 12, page.title, new_x="LMARGIN", new_y="NEXT")
    pdf.set_font("Helvetica", size=12)
    pdf.multi_cell(0, 7, page.text, new_x="LMARGIN", new_y="NEXT")
    return bytes(pdf.output())


def _jsonl(path: Path, rows: Iterator[dict[str, Any]] | list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
