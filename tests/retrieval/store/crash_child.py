"""The process that is killed: `crash_child.py FOLDER` forks a writer for each line `SEED FIRST COUNT DELAY`.

A writer carries out the operations of a seed from number FIRST to COUNT, and notes each that is done; after DELAY seconds it is
killed. Answers are lines: `SECONDS` that a writer took when it was not killed, or `killed`, or `failed`.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta")


def operations(seed: int, count: int) -> list[tuple[str, Any]]:
    """What writers do, the same for the same seed: upserts, deletions, passes over changed or removed files, packing, ends."""
    dice = random.Random(seed)
    result: list[tuple[str, Any]] = []
    for number in range(count):
        kind = dice.choices(("upsert", "delete", "change", "remove", "compact", "finish"), (6, 3, 4, 2, 1, 1))[0]
        form = "file{}.txt" if kind in ("change", "remove") else "doc{}"
        names = dice.sample([form.format(i) for i in range(12)], dice.randint(1, 5))
        if kind in ("upsert", "change"):
            stuff = [" ".join(dice.choices(WORDS, k=8)) for _ in range(25)]
            result.append(
                (
                    kind,
                    {name: f"{name} at {number}. " + ". ".join(dice.choices(stuff, k=dice.randint(1, 20))) for name in names},
                )
            )
        else:
            result.append((kind, names))
    return result


def look(writer: Any) -> None:
    """A pass over the files, as `build` makes it."""
    from llmbench.retrieval.index.build import _Job

    writer.batches.current += 1
    _Job(writer.recipe, writer, lambda done, total, source: None).run()


def carry_out(writer: Any, operation: tuple[str, Any], pages: Path) -> None:
    """One operation."""
    from llmbench.retrieval.documents import Document
    from llmbench.retrieval.index.compact import compact

    match operation:
        case ("upsert", texts):
            writer.upsert(
                Document(hashlib.sha256(text.encode()).hexdigest(), name, name, text, "text", {"length": len(text)})
                for name, text in texts.items()
            )
        case ("delete", names):
            writer.delete(sources=names)
            writer.index.settle(purge=True)
        case ("change", texts):
            for name, text in texts.items():
                (pages / name).write_text(text)
            look(writer)
        case ("remove", names):
            for name in names:
                (pages / name).unlink(missing_ok=True)
            look(writer)
        case ("finish", _):
            writer.finish()
        case _:
            writer.batches.index = compact(writer.folder, writer.index)


def work(folder: Path, seed: int, first: int, count: int) -> None:
    """Carries out operations, and notes in the file `done` how many are."""
    from words import Words  # type: ignore[import-not-found]

    from llmbench.recipe import ChunkingSpec, RagRecipe, SourceSpec
    from llmbench.retrieval.index.writer import Writer
    from llmbench.retrieval.store.words import postings_build

    postings_build.LEAST, postings_build.BATCH = 20, 50  # files of postings, several of them
    pages = folder / "pages"
    pages.mkdir(exist_ok=True)
    recipe = RagRecipe(name="store", documents=[SourceSpec(path=pages)], chunking=ChunkingSpec(max_tokens=12, overlap=2))
    done = os.open(folder / "done", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with Writer.open(recipe, embedder=Words()) as writer:
        for number, operation in enumerate(operations(seed, count)[first:], first + 1):
            carry_out(writer, operation, pages)
            os.pwrite(done, f"{number}\n".encode().ljust(12), 0)


def main() -> None:
    import faiss  # noqa: F401 - loaded once, before the forks
    import numpy  # noqa: F401

    import llmbench.retrieval.index.build  # noqa: F401

    folder = Path(sys.argv[1])
    for line in sys.stdin:
        seed, first, count, delay = line.split()
        began = time.perf_counter()
        child = os.fork()
        if child == 0:
            try:
                work(folder, int(seed), int(first), int(count))
                os._exit(0)
            except BaseException:
                import traceback

                traceback.print_exc()
                os._exit(1)
        killed = False
        end = began + float(delay)
        while True:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                break
            if not killed and time.perf_counter() >= end:
                os.kill(child, signal.SIGKILL)
                killed = True
            time.sleep(0.0005)
        print(time.perf_counter() - began if status == 0 else "killed" if killed else "failed", flush=True)


if __name__ == "__main__":
    main()
