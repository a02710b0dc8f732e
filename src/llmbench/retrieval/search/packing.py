"""Passages into a prompt: as many as its tokens allow, in an order that is good for the reader or for the server's cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import ContextSpec
from llmbench.retrieval.chunking import sentence_ends
from llmbench.retrieval.search.passages import Passage, cut, standing
from llmbench.retrieval.search.prompt import fill

__all__ = ["Count", "Packed", "Place", "ordered", "pack", "place", "render", "tokenizer_count"]

Count = Callable[[str], int]
"""How many tokens a text has, special tokens left out."""
Place = tuple[str, int]
"""Source and start of a passage: what it is known by from one question to the next."""

SEPARATOR = "\n"


@dataclass(frozen=True)
class Packed:
    """What goes into the prompt. `passages[i]` is cited as `[i + 1]`, and `text` is all of them by the recipe's template.

    `tokens` is None where nothing counts them. `left_out` are the ranks of hits that no passage holds, `cut` says that the
    last passage that fitted lost its end.
    """

    passages: tuple[Passage, ...]
    text: str
    tokens: int | None
    left_out: tuple[int, ...]
    cut: bool


def pack(
    passages: Sequence[Passage],
    context: ContextSpec,
    template: str,
    *,
    count: Count | None = None,
    shared: Mapping[Place, int] | None = None,
) -> Packed:
    """The best passages that fit into `context.max_tokens`, in its order.

    Whole passages are taken, best first, while they fit with all that the template puts around them. The first that does not
    is narrowed to its hits, then cut at a sentence's end, else left out, and with it those behind it.

    Args:
        passages: best first.
        context: the recipe's section.
        template: one passage in the prompt, such as `[{n}] {text}`.
        count: counts as the served model does; needed where `max_tokens` is set.
        shared: see `ordered`.

    Raises:
        LlmbenchError: `max_tokens` is set and nothing counts.
    """
    room = context.max_tokens
    if room is not None and count is None:
        raise LlmbenchError(
            "context.max_tokens is set, but there is no tokenizer to count with. Set context.tokenizer to a folder."
        )
    chosen, was_cut = list(passages), False
    if room is not None and count is not None:
        chosen, was_cut = _fitting(passages, room, template, count)
    while True:
        placed = ordered(chosen, context.order, shared)
        text = render(placed, template)
        tokens = count(text) if count is not None else None
        # Tokens are not additive: two texts may have one token more together than apart. The worst passage gives way then.
        if room is None or tokens is None or tokens <= room:
            break
        chosen.pop()
        was_cut = False
    held = {rank for passage in placed for rank in passage.hits}
    left_out = sorted({rank for passage in passages for rank in passage.hits} - held)
    return Packed(tuple(placed), text, tokens, tuple(left_out), was_cut)


def ordered(passages: Sequence[Passage], order: str, shared: Mapping[Place, int] | None = None) -> list[Passage]:
    """Passages in the order of a prompt.

    `score` is best first. `document` has documents by their best passage, and within one by place. `stable` is by document
    and place alone, whatever their scores: two questions that find the same passages send the same tokens, so that vLLM,
    which keeps the keys and values of a prompt's beginning in blocks of 16 tokens, does not compute them again.

    Args:
        passages: in any order.
        order: one of the three.
        shared: for `stable`, how often passages were found by other questions: those come first, most often first, since
            only what stands at the beginning can be shared. It has to stay as it is while prompts are to be alike.
    """
    best = sorted(passages, key=standing)
    match order:
        case "score":
            return best
        case "document":
            sources = list(dict.fromkeys(passage.source for passage in best))
            return sorted(best, key=lambda passage: (sources.index(passage.source), passage.start))
        case "stable":
            often = shared or {}
            return sorted(best, key=lambda passage: (-often.get(place(passage), 0), passage.source, passage.start))
    raise LlmbenchError(f"context.order {order!r} is not one of score, document, stable.")


def place(passage: Passage) -> Place:
    """What a passage is known by from one question to the next."""
    return (passage.source, passage.start)


def render(passages: Sequence[Passage], template: str) -> str:
    """All passages by the template, numbered from 1."""
    return SEPARATOR.join(_one(passage, template, str(n)) for n, passage in enumerate(passages, 1))


def tokenizer_count(folder: Path) -> Count:
    """Counts tokens as the model of a folder does.

    Raises:
        LlmbenchError: there is no tokenizer.json in it, or it cannot be read.
        MissingPackage: tokenizers is not installed.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingPackage("ask", "tokenizers", "rag") from error
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise LlmbenchError(f"context.tokenizer: {folder} has no tokenizer.json. Use the served model's folder.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception
        raise LlmbenchError(f"{file}: cannot be read as a tokenizer ({str(error)[:100]}).") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _fitting(passages: Sequence[Passage], room: int, template: str, count: Count) -> tuple[list[Passage], bool]:
    """The best passages that fit together, and whether the last was cut at a sentence."""
    widest = str(len(passages))  # a number of more digits may be more tokens
    chosen: list[Passage] = []
    taken = 0

    def size(passage: Passage) -> int:
        return count(_one(passage, template, widest) + SEPARATOR)

    for passage in passages:
        core = passage.core if passage.core[0] < passage.core[1] else (passage.start, passage.end)
        for candidate in dict.fromkeys((passage, cut(passage, *core))):
            here = size(candidate)
            if taken + here <= room + 1:  # the last one has no line end after it; `pack` counts the whole
                chosen.append(candidate)
                taken += here
                break
        else:
            last = _cut_to(cut(passage, *core), room - taken, size)
            return ([*chosen, last], True) if last is not None else (chosen, False)
    return chosen, False


def _cut_to(passage: Passage, room: int, size: Callable[[Passage], int]) -> Passage | None:
    """As many whole sentences from a passage's beginning as fit; None where not even one does."""
    ends = [len(passage.text[:end].rstrip()) for end in sentence_ends(passage.text, 0, len(passage.text))]
    low, high = 0, len(ends)  # the first `low` sentences fit, `high + 1` do not
    while low < high:
        middle = (low + high + 1) // 2
        if size(cut(passage, passage.start, passage.start + ends[middle - 1])) <= room:
            low = middle
        else:
            high = middle - 1
    return cut(passage, passage.start, passage.start + ends[low - 1]) if low else None


def _one(passage: Passage, template: str, number: str) -> str:
    text = _flat(f"{passage.head}\n{passage.text}" if passage.head else passage.text)
    return fill(template, {"n": number, "text": text, "title": passage.title, "source": passage.source})


def _flat(text: str) -> str:
    """A passage on one line, but for the rows of a table, which only their line ends divide."""
    if "|" not in text:
        return " ".join(text.split())
    lines = [line for line in (" ".join(line.split()) for line in text.splitlines()) if line]
    flat = lines[:1]
    for above, line in pairwise(lines):
        flat.append(f"\n{line}" if "|" in above and "|" in line else f" {line}")
    return "".join(flat)
