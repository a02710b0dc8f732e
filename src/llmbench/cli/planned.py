"""What `llmbench compare --plan` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmbench.compare.plan import ComparisonPlan
    from llmbench.recipe import CompareRecipe

__all__ = ["plan"]


def plan(document: CompareRecipe, as_json: bool) -> None:
    """Plans a comparison and says what so many questions can show."""
    from importlib.util import find_spec

    from llmbench.cli import terminal
    from llmbench.errors import MissingPackage
    from llmbench.shown import printable

    if find_spec("scipy") is None:
        raise MissingPackage("compare", "scipy", "compare")
    from llmbench import compare as comparing
    from llmbench import workspace
    from llmbench.compare import plan as planning

    finished = (workspace.comparisons() / document.name / "summary.json").exists()
    found = planning.plan(document, comparing.load(document.name) if finished else None)
    if as_json:
        terminal.print_json(found.to_json())
        return
    asked = (
        f"{found.questions:,} questions about {found.pages:,} pages"
        if found.pages < found.questions
        else (f"{found.questions:,} questions")
    )
    out = f" ({found.excluded:,} left out)" if found.excluded else ""
    times = f" x {found.repeats:,} repeats" if found.repeats > 1 else ""
    answers = found.questions * found.variants * found.repeats
    print(f"{asked}{out} x {found.variants:,} variants{times} = {answers:,} answers")
    if found.rows:
        terminal.table(_rows(found))
    earlier = f"; {found.tokens['as_earlier']:,} as in the earlier comparison" if found.tokens["as_earlier"] else ""
    print(f"Tokens: {found.tokens['read']:,} read, at most {found.tokens['written_at_most']:,} written{earlier}")
    for note in found.notes:
        terminal.paragraph(printable(note))


def _rows(found: ComparisonPlan) -> list[list[str]]:
    """One row a margin and assumption: how often the questions at hand show it, and how many it takes."""
    from llmbench.compare.verdict import signed

    rows = [[found.measure.label, "margin", "differ", "design effect", f"power, n = {found.questions:,}", "n for 80%"]]
    for one in found.rows:
        margin = f"{100 * one.margin:g}%" if one.relative else signed(found.measure, one.margin).removeprefix("+")
        differ = f"{100 * one.differ:.1f}%" if one.differ is not None else f"sd {one.spread:.2g}"
        needed = f"{one.needed:,}" if one.needed is not None else "no number"
        rows.append(["", margin, differ, f"{one.deff:.1f}", f"{100 * one.power:.0f}%", needed])
    return rows
