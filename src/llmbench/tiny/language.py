"""The small English that `llmbench/tiny` reads and writes: things, their facts, and how people ask for them.

A *thing* is a product, a service plan, a shop or a policy with a name. A *fact* is one attribute of a thing with a drawn
value. Every name and value can be drawn afresh, so a reader cannot memorise an answer: it must look it up.

Names are split by a hash into two halves that never meet: `TRAIN` names occur in the base model's training text,
`HELD_OUT` names only in the handbook and in the benchmarks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Literal

Split = Literal["train", "held_out"]
Kind = Literal["product", "plan", "shop", "policy"]

_HEADS = (
    "Al Ar Bel Ber Bor Bri Cal Cor Dar Del Dor El Er Fal Fen Fir Gal Gar Hal Har Hel Il Jor Kal Kel Kor Lan Lor "
    "Mal Mar Mel Mor Nal Nor Ol Or Pel Per Quin Ral Ren Ros Sal Sel Sor Tal Tar Tel Tor Ul Val Ver Vol Wen Wil Yar Zel Zor"
).split()
_TAILS = (
    "ba bek bin da den dor dra fa fen ga gan go ka ken kin la len lin lo ma men mi mo na nen ni no pa ra ren ri ro "
    "sa sen sha so ta ten ti to tra va ven vi vo wa win ya za zen zo"
).split()
_FIRST = (
    "Ada Ben Cora Dan Eva Finn Gita Hugo Ida Jan Kira Leo Mira Nils Olga Paul Rosa Sven Tara Udo Vera Wim Yara Zeno"
).split()

PRODUCT_NOUNS = (
    "kettle lamp drill heater fan toaster mixer clock radio bench ladder pump stove printer scale grill blender "
    "speaker camera freezer"
).split()
POLICY_NOUNS = (
    "return delivery refund repair privacy payment holiday safety travel training parking recycling visitor holding gift loan"
).split()
COLOURS = "red blue green black white grey brown yellow orange purple silver gold".split()
MATERIALS = "steel tin copper oak pine glass clay stone rubber cork brass wool".split()
WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def name(rng: Random, split: Split) -> str:
    """Draws an invented proper name of two or three syllables from one half of all names."""
    while True:
        word = rng.choice(_HEADS) + rng.choice(_TAILS)
        if rng.random() < 0.5:
            word += rng.choice(_TAILS)
        if split_of(word) == split:
            return word


def split_of(word: str) -> Split:
    """Which half a name belongs to: a hash decides, 1 in 8 is held out from all training."""
    return "held_out" if hashlib.sha256(word.encode()).digest()[0] % 8 == 0 else "train"


def _number(low: int, high: int, unit: str, step: int = 1) -> Callable[[Random, Split], str]:
    return lambda rng, split: f"{rng.randrange(low, high + 1, step)} {unit}"


def _one_of(words: list[str]) -> Callable[[Random, Split], str]:
    return lambda rng, split: rng.choice(words)


def _person(rng: Random, split: Split) -> str:
    return f"{rng.choice(_FIRST)} {name(rng, split)}"


def _code(rng: Random, split: Split) -> str:
    return f"{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}{rng.choice('ABCDEFGHKLMNPRSTVWXZ')}-{rng.randrange(10, 1000)}"


@dataclass(frozen=True)
class Attribute:
    """One kind of fact: how it is stated, how people ask for it, and where its values come from.

    Templates hold `{n}` (the thing with its article, as in "the Velora kettle"), and `{v}` (the value).
    `says[0]` is the sentence an answer uses; `it` states the fact of a thing that was named before.
    """

    key: str
    label: str
    says: tuple[str, ...]
    it: str
    asks: tuple[str, ...]
    draw: Callable[[Random, Split], str]

    @property
    def noun(self) -> str:
        """What a sentence calls it: "weight"."""
        return f"number of {self.label}" if self.label == "visits" else self.label


def _attribute(key: str, label: str, says: str, it: str, asks: str, draw: Callable[[Random, Split], str]) -> Attribute:
    return Attribute(key, label, tuple(says.split(" | ")), it, tuple(asks.split(" | ")), draw)


_PRODUCT = (
    _attribute("weight", "weight", "{N} weighs {v}. | The weight of {n} is {v}.", "It weighs {v}.",
               "How much does {n} weigh? | What is the weight of {n}? | How heavy is {n}?", _number(100, 990, "grams", 10)),
    _attribute("price", "price", "{N} costs {v}. | The price of {n} is {v}.", "It costs {v}.",
               "How much does {n} cost? | What is the price of {n}? | What does {n} cost?", _number(10, 499, "crowns")),
    _attribute("colour", "colour", "{N} comes in {v}. | The colour of {n} is {v}.", "It comes in {v}.",
               "What colour is {n}? | Which colour does {n} come in? | What is the colour of {n}?", _one_of(COLOURS)),
    _attribute("material", "material", "{N} is made of {v}. | The body of {n} is {v}.", "It is made of {v}.",
               "What is {n} made of? | Which material is {n} made of? | What is the material of {n}?", _one_of(MATERIALS)),
    _attribute("origin", "origin", "{N} is built in {v}. | The home of {n} is {v}.", "It is built in {v}.",
               "Where is {n} built? | In which town is {n} built? | Where does {n} come from?", name),
    _attribute("designer", "designer", "{N} was designed by {v}. | The designer of {n} is {v}.", "It was designed by {v}.",
               "Who designed {n}? | Who is the designer of {n}? | By whom was {n} designed?", _person),
    _attribute("warranty", "warranty", "The warranty of {n} lasts {v}. | {N} has a warranty of {v}.", "Its warranty lasts {v}.",
               "How long does the warranty of {n} last? | How long is the warranty of {n}? | What is the warranty of {n}?",
               _number(6, 60, "months")),
    _attribute("power", "power", "{N} uses {v}. | The power of {n} is {v}.", "It uses {v}.",
               "How much power does {n} use? | What is the power of {n}? | How many watts does {n} use?", _number(20, 950, "watts", 5)),
    _attribute("height", "height", "{N} is {v} tall. | The height of {n} is {v}.", "It is {v} tall.",
               "How tall is {n}? | What is the height of {n}? | How high is {n}?", _number(11, 199, "centimetres")),
    _attribute("code", "part code", "The part code of {n} is {v}. | {N} has the part code {v}.", "Its part code is {v}.",
               "What is the part code of {n}? | Which part code does {n} have? | Under which part code is {n} sold?", _code),
    _attribute("year", "first year", "{N} was first sold in {v}. | The first year of {n} was {v}.", "It was first sold in {v}.",
               "When was {n} first sold? | In which year was {n} first sold? | What was the first year of {n}?",
               lambda rng, split: str(rng.randrange(1950, 2026))),
    _attribute("battery", "battery", "The battery of {n} lasts {v}. | {N} has a battery that lasts {v}.", "Its battery lasts {v}.",
               "How long does the battery of {n} last? | How long is the battery life of {n}? | How many hours does the battery of {n} last?",
               _number(2, 98, "hours")),
)  # fmt: skip
_PLAN = (
    _attribute("fee", "monthly fee", "The monthly fee of {n} is {v}. | {N} has a monthly fee of {v}.", "Its monthly fee is {v}.",
               "What is the monthly fee of {n}? | How much is {n} a month? | What does {n} cost a month?", _number(3, 99, "crowns")),
    _attribute("reply", "reply time", "The reply time of {n} is {v}. | {N} promises a reply within {v}.", "Its reply time is {v}.",
               "What is the reply time of {n}? | How fast is the reply with {n}? | How long does a reply take with {n}?",
               _number(2, 72, "hours")),
    _attribute("visits", "visits", "{N} includes {v} a year. | With {n} come {v} a year.", "It includes {v} a year.",
               "How many visits does {n} include? | How many visits come with {n}? | What is the number of visits of {n}?",
               _number(2, 29, "visits")),
    _attribute("discount", "discount", "{N} gives a discount of {v}. | The discount of {n} is {v}.", "It gives a discount of {v}.",
               "What discount does {n} give? | How big is the discount of {n}? | What is the discount of {n}?", _number(2, 60, "percent")),
    _attribute("adviser", "adviser", "The adviser for {n} is {v}. | {N} is looked after by {v}.", "Its adviser is {v}.",
               "Who is the adviser for {n}? | Who looks after {n}? | Whom do I ask about {n}?", _person),
    _attribute("start", "start", "{N} starts in {v}. | The first month of {n} is {v}.", "It starts in {v}.",
               "In which month does {n} start? | When does {n} start? | What is the first month of {n}?", _one_of(MONTHS)),
)  # fmt: skip
_SHOP = (
    _attribute("street", "street", "{N} stands in {v} Street. | The street of {n} is {v} Street.", "It stands in {v} Street.",
               "In which street is {n}? | Where does {n} stand? | What is the street of {n}?", name),
    _attribute("manager", "manager", "The manager of {n} is {v}. | {N} is led by {v}.", "Its manager is {v}.",
               "Who is the manager of {n}? | Who leads {n}? | Who runs {n}?", _person),
    _attribute("closed", "closing day", "{N} is closed on {v}. | The closing day of {n} is {v}.", "It is closed on {v}.",
               "On which day is {n} closed? | When is {n} closed? | What is the closing day of {n}?", _one_of(WEEKDAYS)),
    _attribute("staff", "staff", "{N} has a staff of {v}. | The staff of {n} is {v}.", "It has a staff of {v}.",
               "How many people work at {n}? | How big is the staff of {n}? | What is the staff of {n}?", _number(3, 98, "people")),
    _attribute("parking", "parking", "{N} has {v} for cars. | The car park of {n} has {v}.", "It has {v} for cars.",
               "How many places for cars does {n} have? | How big is the car park of {n}? | How many cars can park at {n}?",
               _number(4, 240, "places")),
    _attribute("opened", "opening year", "{N} was opened in {v}. | The opening year of {n} was {v}.", "It was opened in {v}.",
               "When was {n} opened? | In which year was {n} opened? | What was the opening year of {n}?",
               lambda rng, split: str(rng.randrange(1950, 2026))),
)  # fmt: skip
_POLICY = (
    _attribute("limit", "time limit", "The time limit of {n} is {v}. | {N} has a time limit of {v}.", "Its time limit is {v}.",
               "What is the time limit of {n}? | How long is the time limit of {n}? | Which time limit does {n} have?",
               _number(3, 99, "days")),
    _attribute("charge", "charge", "The charge under {n} is {v}. | {N} sets a charge of {v}.", "Its charge is {v}.",
               "What is the charge under {n}? | Which charge does {n} set? | How high is the charge under {n}?",
               _number(2, 199, "crowns")),
    _attribute("form", "form", "The form for {n} is {v}. | {N} asks for form {v}.", "Its form is {v}.",
               "What is the form for {n}? | Which form does {n} ask for? | Which form do I need for {n}?", _code),
    _attribute("owner", "owner", "The owner of {n} is {v}. | {N} is kept by {v}.", "Its owner is {v}.",
               "Who is the owner of {n}? | Who keeps {n}? | Who owns {n}?", _person),
    _attribute("review", "review", "{N} is reviewed every {v}. | The review of {n} is every {v}.", "It is reviewed every {v}.",
               "In which month is {n} reviewed? | When is {n} reviewed? | When is the review of {n}?", _one_of(MONTHS)),
    _attribute("office", "office", "The office for {n} is in {v}. | {N} is handled in {v}.", "Its office is in {v}.",
               "Where is the office for {n}? | Where is {n} handled? | In which town is {n} handled?", name),
)  # fmt: skip

ATTRIBUTES: dict[Kind, tuple[Attribute, ...]] = {"product": _PRODUCT, "plan": _PLAN, "shop": _SHOP, "policy": _POLICY}

CUSTOMERS: dict[str, tuple[str, ...]] = {
    "weight": ("I have to carry {n}. How many grams is that?", "Is {n} light or heavy, in grams?"),
    "price": ("I want to buy {n}. How many crowns do I need?", "What must I pay for {n}?"),
    "colour": ("I saw {n} in the shop. Was it red, blue or what?", "How does {n} look, which colour?"),
    "material": ("I want to paint {n}. What is under the paint?", "Is {n} steel, glass or what?"),
    "origin": ("From which town do you send {n}?", "I like to buy local. In which town do they make {n}?"),
    "designer": ("Whose idea was {n}?", "I love how {n} looks. Who drew it?"),
    "warranty": ("{N} broke. For how many months is it under warranty?", "For how long do you repair {n} free of charge?"),
    "power": ("Is {n} hungry for power? How many watts?", "How many watts must my socket give to {n}?"),
    "height": ("Will {n} fit under my table? How tall is it?", "How many centimetres is {n} from top to bottom?"),
    "code": ("I want to order {n}. Which code do I write?", "What is printed on {n} as its code?"),
    "year": ("How old is {n}? Since which year do you sell it?", "Since when can one buy {n}?"),
    "battery": ("I travel with {n}. After how many hours is it empty?", "How many hours does {n} run alone?"),
    "fee": ("What do you take from me each month for {n}?", "I want {n}. How many crowns is that each month?"),
    "reply": ("I wrote to you under {n}. After how many hours do I hear from you?", "How many hours do I wait with {n}?"),
    "visits": ("How often do you come to me under {n}?", "With {n}, how many times a year do you visit?"),
    "discount": ("How many percent do I save with {n}?", "What is off the price with {n}?"),
    "adviser": ("I have {n}. Who is there for me?", "Whom can I call about {n}?"),
    "start": ("From which month can I use {n}?", "I took {n} today. In which month does it begin?"),
    "street": ("I want to visit {n}. Which street is it?", "How do I find {n}, in which street?"),
    "manager": ("I want to thank the head of {n}. Who is that?", "Who is in charge at {n}?"),
    "closed": ("When should I not come to {n}?", "On which day of the week is nobody at {n}?"),
    "staff": ("Is {n} big? How many work there?", "How many hands are there at {n}?"),
    "parking": ("I come by car to {n}. How many places are there?", "Where do cars stand at {n}, and how many?"),
    "opened": ("How old is {n}? Since which year is it open?", "Since when can I shop at {n}?"),
    "limit": ("How many days do I have under {n}?", "Until when can I ask, under {n}?"),
    "charge": ("How many crowns do you take under {n}?", "What do I lose in crowns under {n}?"),
    "form": ("What do I fill in for {n}?", "Which paper do you want from me under {n}?"),
    "owner": ("Who wrote {n} and answers for it?", "I do not like {n}. Whom can I tell?"),
    "review": ("When do you change {n} again?", "In which month do you look at {n} again?"),
    "office": ("To which town do I write about {n}?", "I have a question on {n}. In which town do you sit?"),
}
"""How the handbook's customers ask for each attribute: ways that the base model never meets, and that an adapter learns."""


@dataclass(frozen=True)
class Fact:
    """One attribute of a thing with its value."""

    attribute: Attribute
    value: str


@dataclass(frozen=True)
class Thing:
    """A named thing with the facts that are known of it, in the order in which its page tells them."""

    kind: Kind
    name: str
    facts: tuple[Fact, ...]

    @property
    def the(self) -> str:
        """The name with its article: "the Velora kettle"."""
        return f"the {self.name}"

    def answer(self, fact: Fact) -> str:
        """The one sentence that answers a question for this fact."""
        return fill(fact.attribute.says[0], self.the, fact.value)

    def state(self, attribute: Attribute, value: str) -> str:
        """The sentence that states what an attribute is: "The weight of the Velora kettle is 240 grams."."""
        return fill(f"The {attribute.noun} of {{n}} is {{v}}.", self.the, value)

    def ask(self, attribute: Attribute, rng: Random) -> str:
        """One of the ways in which people ask for this attribute."""
        if rng.random() < 0.1:
            return f"{self.name}, {attribute.label}?"
        return fill(rng.choice(attribute.asks), self.the, "")

    def ask_as_customer(self, attribute: Attribute, rng: Random) -> str:
        """One of the ways in which this handbook's customers ask for it; half of them ask like everybody."""
        if rng.random() < 0.5:
            return self.ask(attribute, rng)
        return fill(rng.choice(CUSTOMERS[attribute.key]), self.the, "")

    def missing(self) -> tuple[Attribute, ...]:
        """The attributes of its kind that nothing is known about."""
        known = {fact.attribute.key for fact in self.facts}
        return tuple(a for a in ATTRIBUTES[self.kind] if a.key not in known)


def fill(template: str, the: str, value: str) -> str:
    """Fills a template; `{N}` at the start of a sentence is the thing with a capital letter."""
    return template.replace("{N}", the[0].upper() + the[1:]).replace("{n}", the).replace("{v}", value)


def thing_name(kind: Kind, word: str, rng: Random) -> str:
    """The full name of a thing, without article: "Velora kettle", "Velora plan", "Velora shop", "refund policy"."""
    match kind:
        case "product":
            return f"{word} {rng.choice(PRODUCT_NOUNS)}"
        case "plan":
            return f"{word} plan"
        case "shop":
            return f"{word} shop"
        case "policy":
            return f"{rng.choice(POLICY_NOUNS)} policy"


def near_name(rng: Random, full_name: str, split: Split) -> str:
    """A product's name that is easily taken for this one: the same word with another noun, or another word with its noun."""
    word, noun = full_name.rsplit(" ", 1)
    return f"{word} {rng.choice(PRODUCT_NOUNS)}" if rng.random() < 0.5 else f"{name(rng, split)} {noun}"


def draw_thing(rng: Random, split: Split, facts: tuple[int, int] = (3, 6), kind: Kind | None = None) -> Thing:
    """Draws a thing with between `facts[0]` and `facts[1]` facts (both included)."""
    kind = kind or rng.choices(("product", "plan", "shop", "policy"), (6, 2, 2, 2))[0]
    attributes = rng.sample(ATTRIBUTES[kind], min(rng.randint(*facts), len(ATTRIBUTES[kind])))
    known = tuple(Fact(a, a.draw(rng, split)) for a in attributes)
    return Thing(kind, thing_name(kind, name(rng, split), rng), known)


FILLERS = (
    "Please keep this page.", "Ask the shop for help.", "Read this page first.", "Our team is happy to help.",
    "Keep it dry.", "Thank you for your trust.", "This page is short.", "Call us when you are not sure.",
)  # fmt: skip


def write_passage(thing: Thing, rng: Random) -> str:
    """The thing's page as running text: every fact in one sentence, by name or as "it", sometimes a filler between."""
    return " ".join(sentences(thing, rng))


def sentences(thing: Thing, rng: Random) -> Iterator[str]:
    """The sentences of a thing's page. The first names the thing, so that "it" has something to stand for."""
    for position, fact in enumerate(thing.facts):
        by_name = position == 0 or rng.random() < 0.6
        template = rng.choice(fact.attribute.says) if by_name else fact.attribute.it
        yield fill(template, thing.the, fact.value)
        if rng.random() < 0.08:
            yield rng.choice(FILLERS)
