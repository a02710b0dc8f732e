"""`llmbench compare --replay`: what it prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from llmbench.cli.asking_bar import AskingBar

if TYPE_CHECKING:
    from llmbench.compare import ComparisonReplay
    from llmbench.recipe import CompareRecipe

__all__ = ["replay"]


def replay(document: CompareRecipe, as_json: bool) -> None:
    """Asks again, and says whether the same answers came; ends with 1 where they did not."""
    from llmbench import compare as comparing
    from llmbench.cli import terminal

    with AskingBar("Answers are only compared: nothing was written.") as bar:
        found = comparing.replay(document, watched=comparing.AskingWatch(bar.show, bar.starting, bar.say))
    if as_json:
        terminal.print_json(found.to_json())
    else:
        _show_replay(found)
    if not found.holds:
        raise typer.Exit(1)


def _show_replay(found: ComparisonReplay) -> None:
    """One line a variant, and the first difference of each."""
    from llmbench.cli import terminal
    from llmbench.shown import counted, printable

    rows = [["variant", "same bits", "same tokens", "drifted", "failed", ""]]
    for one in found.variants:
        counts = (one.same_bits, one.same_tokens, one.drifted, one.failed)
        rows.append([one.variant, *(f"{count:,}" for count in counts), one.state])
    terminal.table(rows)
    for one in found.variants:
        for changed in one.changed:
            print(f"{printable(one.variant)}: since then, {printable(changed)}")
        if one.first is not None:
            which = f"{one.first.id}, repeat {one.first.repeat + 1}" if one.first.repeat else one.first.id
            where = f"first difference at character {one.first.at + 1} of the answer to {printable(which)}"
            print(f"{printable(one.variant)}: {where}")
            for word, said in (("before", one.first.before), ("now", one.first.now)):
                print(f"  {word:6}  {printable(_around(said, one.first.at))}")
    if not found.with_bits:
        print("The same bits cannot be told from the same tokens: log-probabilities were not kept (logprobs: true keeps them).")
    drifted = sum(one.drifted + one.failed for one in found.variants)
    print("Every answer came again." if not drifted else f"{counted(drifted, 'answer')} came otherwise.")


def _around(text: str, at: int, room: int = 60) -> str:
    """A piece of a text from somewhat before a character on."""
    start = max(0, at - room // 3)
    return f"{'…' if start else ''}{text[start : start + room]}{'…' if start + room < len(text) else ''}"
