"""Past one machine: Ray Data spreads files over a cluster, each worker writes a shard, and the shards become one index.

A shard is a small index of its own, in a folder that all machines see (the index's); what is merged from it has the numbers,
the checks and the transactions of everything else. Only files that changed are spread.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbench import written
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.recipe import RagRecipe, SourceSpec
from llmbench.retrieval import reading
from llmbench.retrieval.documents import Skipped
from llmbench.retrieval.embedding import Embedder
from llmbench.retrieval.reading import File
from llmbench.retrieval.store import Contract, FileState, Index, WritableIndex

if TYPE_CHECKING:
    from llmbench.retrieval.index.writer import Writer

__all__ = ["Shard", "merge", "spread"]

BYTES = 32 * 2**20
"""Of files in a shard: a minute or two of a worker's time."""
FILES = 500
"""Files in a shard at most."""
MERGED = 256
"""Documents merged in one transaction."""


@dataclass(frozen=True)
class Shard:
    """What a worker made of some files: where its index lies, their states, and which could not be read now, and why."""

    path: Path
    states: tuple[FileState, ...]
    unread: tuple[Skipped, ...]
    embedded: int


def spread(recipe: RagRecipe, folder: Path, contract: Contract, files: Sequence[tuple[File, FileState]]) -> Iterator[Shard]:
    """Has the machines of a Ray cluster read, cut and embed files; gives shards as they are done.

    The cluster is the one of RAY_ADDRESS; without it, one is started on this machine.

    Raises:
        MissingPackage: Ray is not installed.
        LlmbenchError: the cluster is not reached, or a worker died.
    """
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported home
        import ray
        import ray.data
    except ImportError as error:
        raise MissingPackage("index --engine ray", "ray", "scale") from error
    place = written.begin(folder / ".shards")
    try:
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False, configure_logging=False)
        ray.data.DataContext.get_current().enable_progress_bars = False
        parts = [
            {"folder": str(place / str(number)), "files": json.dumps([_plain(file, state) for file, state in part])}
            for number, part in enumerate(_parts(files))
        ]
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = resources.get("GPU", 0)
        workers = max(1, int(gpus or resources.get("CPU", 1)))
        given = {"recipe": recipe.model_dump_json(), "contract": json.dumps(contract.to_json())}
        rows = ray.data.from_items(parts, override_num_blocks=len(parts)).map(
            _Worker,  # type: ignore[arg-type]  # a class is called with its own arguments first
            fn_constructor_kwargs=given,
            concurrency=min(workers, len(parts)),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )
        for row in rows.iter_rows():
            states = tuple(FileState(*values) for values in json.loads(row["states"]))
            unread = tuple((a, b) for a, b in json.loads(row["unread"]))
            yield Shard(Path(row["folder"]), states, unread, int(row["embedded"]))
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise LlmbenchError(f"Ray: {reason}. Run the command again: what was merged is kept.") from error
    finally:
        written.drop(place)


def merge(writer: Writer, shard: Shard) -> list[Skipped]:
    """Takes a shard's documents over, in transactions of whole documents, and removes it. Returns what was left out."""
    source = Index(shard.path)
    target = writer.index
    writer.note()
    settings = {state.source: state.settings for state in shard.states}
    try:
        with target.transaction():
            for state in shard.states:
                target.begin_file(state.source, settings[state.source])
        documents = source.documents()
        while True:
            with target.transaction():
                target.set(complete=False, **{"pass": writer.batches.current})
                count = 0
                for document, chunks in documents:
                    file = source.file_of(document.source)
                    assert file is not None
                    if not writer.names.free(document, file):
                        continue
                    digests, rows = source.digests([chunk.id for chunk in chunks])
                    known = target.standing(document.source)
                    writer.tally.added += known is None
                    writer.tally.changed += known is not None
                    target.put(document, chunks, digests, source.vectors.take(rows), file=file, current=writer.batches.current)
                    count += 1
                    if count == MERGED:
                        break
            if count < MERGED:
                break
        states = [writer.names.told(state) for state in shard.states]
        with target.transaction():
            for state in states:
                writer.tally.removed += target.end_file(state, writer.batches.current)
    finally:
        source.close()
        shutil.rmtree(shard.path, ignore_errors=True)
    writer.tally.embedded += shard.embedded
    return [(state.source, state.skipped) for state in states if state.skipped]


class _Worker:
    """On a worker: the embedder is loaded once, each row of the data set is some files to make a shard of."""

    def __init__(self, recipe: str, contract: str) -> None:
        self.recipe = RagRecipe.model_validate(json.loads(recipe))
        self.contract = Contract.from_json(json.loads(contract))
        self.embedder = Embedder(self.recipe.embedder, gpu=True, like=self.contract.embedder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from llmbench.retrieval.index.writer import Writer

        folder = Path(row["folder"])
        shutil.rmtree(folder, ignore_errors=True)
        files = {
            source: (File(Path(path), source, SourceSpec.model_validate(place)), FileState(*state))
            for path, source, place, state in json.loads(row["files"])
        }
        index = WritableIndex.create(folder, self.contract, self.embedder.dim)
        writer = Writer(self.recipe, folder.parent, index, self.embedder, switch=False)
        states, unread = [], []
        try:
            for read in reading.read_all(file for file, _ in files.values()):
                source = read.file.source
                if read.momentary:
                    unread.append((source, read.failure))
                    continue
                state = files[source][1]
                writer.begin(source, state.settings)
                for document in read.documents:
                    writer.add(document, file=source)
                if read.failure:
                    files[source] = files[source][0], replace(state, skipped=read.failure)
                if read.last:
                    states.append(list(writer.end(files[source][1]).values()))
            writer.flush()
            with index.transaction():
                for source, _ in unread:  # rows of it that came before
                    index.delete_file(source)
        finally:
            writer.close()
        told = {"states": json.dumps(states), "unread": json.dumps(unread)}
        return {"folder": str(folder), **told, "embedded": writer.tally.embedded}


def _parts(files: Sequence[tuple[File, FileState]]) -> Iterator[list[tuple[File, FileState]]]:
    """Files in their order, cut where a shard is full."""
    part: list[tuple[File, FileState]] = []
    size = 0
    for file, state in files:
        if part and (size + state.size > BYTES or len(part) == FILES):
            yield part
            part, size = [], 0
        part.append((file, state))
        size += state.size
    if part:
        yield part


def _plain(file: File, state: FileState) -> list[Any]:
    return [str(file.path), file.source, file.place.model_dump(mode="json"), list(asdict(state).values())]
