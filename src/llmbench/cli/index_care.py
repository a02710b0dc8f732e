"""What keeps an index whole and small: what the commands of `llmbench index` do, but for `build`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import typer

from llmbench.cli.terminal import print_json
from llmbench.errors import IndexError_, LlmbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmbench.recipe import RagRecipe

__all__ = ["compact", "delete", "prune", "repair", "report", "use", "verify"]


def _folder(recipe: RagRecipe) -> Path:
    from llmbench import workspace
    from llmbench.retrieval.store import layout

    folder = workspace.indexes() / recipe.name
    layout.check_claim(folder, recipe)
    if layout.current(folder) is None:
        raise IndexError_(f"{recipe.source}: index {recipe.name} is not built. Run: llmbench index build {recipe.source}")
    return folder


def use(recipe: RagRecipe, number: int, wait: float, *, as_json: bool) -> None:
    """Searches go over to another generation, of which the recipe may be another version."""
    from llmbench import workspace
    from llmbench.retrieval.store import Index, layout
    from llmbench.shown import counted

    folder = _folder(recipe)
    with workspace.lock(folder, "index", wait=wait):
        there = {int(path.name): path for path in layout.generations(folder)}
        if number not in there:
            raise LlmbenchError(f"index {recipe.name} has no generation {number}. Available: {_list(there)}.")
        index = Index(there[number])
        try:
            if not index.get("complete"):
                raise LlmbenchError(
                    f"generation {number} is not complete. Finish it: llmbench index build {recipe.source} --rebuild"
                )
            documents, passages = index.document_count(), index.count()
        finally:
            index.close()
        layout.point(folder, there[number])
        now = layout.current(folder)
    others = [name for name, path in there.items() if path != now]
    if as_json:
        counts = {"documents": documents, "chunks": passages}
        print_json({"pipeline": recipe.name, "generation": number, **counts, "others": sorted(others)})
        return
    told = f"{counted(documents, 'document')}, {counted(passages, 'passage')}"
    print(f"{recipe.name}: searches now use generation {number} ({told}).")
    if others:
        print(f"Also kept: {_list(others)}. To remove them: llmbench index prune {recipe.source}")


def prune(recipe: RagRecipe, wait: float, *, as_json: bool) -> None:
    """Removes every generation but the current one."""
    from llmbench import workspace
    from llmbench.retrieval.store import layout
    from llmbench.shown import counted

    folder = _folder(recipe)
    with workspace.lock(folder, "index", wait=wait):
        old = layout.unpointed(folder)
        for path in old:
            layout.remove(path)
    if as_json:
        print_json({"pipeline": recipe.name, "removed": [int(path.name) for path in old]})
    else:
        print(f"{recipe.name}: {counted(len(old), 'generation')} removed.")


def verify(recipe: RagRecipe, absent: Sequence[str], *, as_json: bool) -> None:
    """Looks at everything; exits with 1 when something is not as it should be."""
    from llmbench.retrieval.store import verify as store
    from llmbench.shown import counted, printable

    if not all(text.strip() for text in absent):
        raise LlmbenchError("--absent needs text to search for.")
    folder = _folder(recipe)
    found = store.verify(folder)
    left = {text: [str(path.relative_to(folder)) for path in store.holds(folder, text)] for text in absent}
    words = {text: store.words_left(folder, text) for text in absent}
    held = any(left.values()) or any(words.values())
    if as_json:
        print_json({"pipeline": recipe.name, **found.to_json(), "absent": left, "absent_words": words})
    else:
        looked = (counted(found.documents, "document"), counted(found.chunks, "passage"), counted(found.words, "word"))
        print(f"{recipe.name}: {', '.join(looked)} checked.")
        print(f"{counted(found.vectors, 'vector')}, {found.erased:,} of them deleted and erased.")
        if found.waiting:
            print(f"{counted(found.waiting, 'deleted vector')} not yet erased. Run: llmbench index build {recipe.source}")
        if len(found.generations) > 1:
            print(
                f"Generations {_list(found.generations)} exist, each with its own documents. Keep only the active one: "
                f"llmbench index prune {recipe.source}"
            )
        for text, paths in left.items():
            print(f"{text!r} is in {', '.join(paths)}." if paths else f"{text!r} is in no file of the index.")
            for number, some in words[text].items():
                print(f"The term index of generation {number} still holds words that no document has: {', '.join(some)}.")
            if not words[text]:
                print(f"The term index holds no leftover word of {text!r}.")
        for fault in found.faults:
            print(f"problem: {printable(fault.what)}", file=sys.stderr)
        if found.faults:
            again = any(fault.mend == "rebuild" for fault in found.faults)
            how = f"build {recipe.source} --rebuild" if again else f"repair {recipe.source}"
            print(f"Repair it: llmbench index {how}", file=sys.stderr)
        elif not held:
            print("No problems found.")
    if found.faults or held:
        raise typer.Exit(1)


def repair(recipe: RagRecipe, wait: float, *, as_json: bool) -> None:
    """Repairs what can be repaired, and verifies again."""
    from llmbench.retrieval.index import repair as mending
    from llmbench.shown import counted

    _folder(recipe)
    found = mending.repair(recipe, wait=wait)
    if as_json:
        print_json({"pipeline": recipe.name, **found.to_json()})
    else:
        print(f"{recipe.name}: {counted(found.documents, 'document')}, {counted(found.chunks, 'passage')}. No problems found.")


def compact(recipe: RagRecipe, wait: float, *, as_json: bool) -> None:
    """Packs the index."""
    from llmbench.retrieval.index import Writer, inventory

    folder = _folder(recipe)
    before = inventory.size(folder)
    with Writer.open(recipe, wait=wait) as writer:
        writer.compact()
        writer.finish()
    after = inventory.size(folder)
    if as_json:
        print_json({"pipeline": recipe.name, "bytes_before": before, "bytes": after})
    else:
        print(f"{recipe.name}: compacted from {before / 2**20:,.1f} to {after / 2**20:,.1f} MiB.")


def delete(recipe: RagRecipe, sources: Sequence[str], where: str | None, wait: float, *, as_json: bool) -> None:
    """Deletes documents; nothing of them is left in the index's files."""
    from llmbench.retrieval.index import Writer
    from llmbench.retrieval.store import Filter
    from llmbench.shown import counted

    # In a file's name a bracket is a bracket; as a pattern a[1].md would delete a1.md.
    words: list[Any] = [{"source": {"$glob": source.replace("[", "[[]")}} for source in sources]
    if where is not None:
        try:
            words.append(json.loads(where))
        except ValueError as error:
            raise LlmbenchError(f"--where is not JSON ({error}).") from error
        if Filter.of(words[-1]).fits_all:
            raise LlmbenchError("--where: an empty filter matches every document. To delete all of them: --source '*'.")
    condition = Filter.of({"$or": words})
    _folder(recipe)
    with Writer.open(recipe, wait=wait) as writer:
        count = writer.delete(where=condition)
        writer.finish(purge=True)
    if as_json:
        print_json({"pipeline": recipe.name, "deleted": count, "erased": writer.settled})
        return
    print(f"{recipe.name}: {counted(count, 'document')} deleted.")
    if count and not writer.settled:
        print("A running search still holds deleted data; the next `llmbench index build` erases it.")
    if count:
        print("A file that the pipeline still lists will return at the next build; exclude it in `documents`.")


def report(recipe: RagRecipe, fail_under: float | None, *, as_json: bool) -> None:
    """Tells how much of the documents was embedded, as the index stands; exits with 1 when that is under a bound.

    A file that was skipped and has no document is not read, and how much text it has is unknown: files are counted besides
    characters, and the bound holds for both.
    """
    from rich.console import Console

    from llmbench.retrieval.embedding import Embedder
    from llmbench.retrieval.index import coverage, coverage_table, window
    from llmbench.retrieval.index.freshness import look
    from llmbench.retrieval.store import Index, layout
    from llmbench.shown import counted

    path = layout.current(_folder(recipe))
    assert path is not None
    index = Index(path)
    try:
        with index.snapshot():
            embedder = Embedder(recipe.embedder, like=index.contract.embedder)
            if not index.outdated(recipe, embedder):
                index.check(recipe, embedder)
            found = coverage.coverage(index.documents(), limit=window(embedder), tokens=embedder, reading=embedder.reading)
            held = index.held()
            fresh = look(recipe, index)
    finally:
        index.close()
    unread = sorted({source for source, _ in fresh.skipped} - held)
    files = len(held) + len(unread)
    if as_json:
        counts = {"files": files, "unread": unread, "skipped": fresh.skipped}
        changes = {"added": fresh.added, "changed": fresh.changed, "removed": fresh.removed}
        print_json({"pipeline": recipe.name, **found.to_json(), **counts, "changes": changes})
    else:
        coverage_table.show(found, Console(highlight=False))
        if unread:
            print(f"{len(unread):,} of {counted(files, 'file')} {'was' if len(unread) == 1 else 'were'} not read.")
        if fresh.stale:
            print(
                f"Files changed since the index was built: {len(fresh.added):,} new, {len(fresh.changed):,} changed, "
                f"{len(fresh.removed):,} removed. Run: llmbench index build {recipe.source}"
            )
    if fail_under is None:
        return
    faults = [] if found.characters else ["No document has any text."]
    for share, what in ((100 * found.share, "text was embedded"), (100 * len(held) / max(files, 1), "files were read")):
        if files and share < fail_under:
            faults.append(f"{share:.1f} % of the {what}, less than --fail-under {fail_under:g} %.")
    if faults:
        advice = " Fix what was skipped, or exclude what should not be read." if unread else ""
        print(" ".join(faults) + advice, file=sys.stderr)
        raise typer.Exit(1)


def _list(numbers: Any) -> str:
    return ", ".join(str(number) for number in sorted(numbers)) or "none"
