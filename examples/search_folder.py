"""Index a folder of documents and search it by meaning and by words.

python examples/search_folder.py ~/notes "When does the shop open?"

Needs llmbench[rag]. The first run reads and embeds everything; later ones only what changed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbench import retrieval
from llmbench.recipe import ChunkingSpec, RagRecipe, SourceSpec
from llmbench.retrieval import Retriever, doubt


def main() -> None:
    """Brings the index up to date, searches it, and prints the passages with their places."""
    parser = argparse.ArgumentParser(description="Index a folder of documents and search it.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("query")
    parser.add_argument("--name", default="folder", help="the index's name; one name for each folder")
    parser.add_argument("--top-k", type=int, default=3)
    given = parser.parse_args()

    pipeline = RagRecipe(
        name=given.name,
        documents=[SourceSpec(path=given.folder)],
        chunking=ChunkingSpec(max_tokens=200, overlap=20),
    )
    report = retrieval.build(pipeline)
    print(f"{report.added} added, {report.changed} changed, {report.removed} removed, {report.unchanged} unchanged")
    for source, reason in report.skipped:
        print(f"skipped {source}: {reason}")

    with Retriever.open(pipeline) as retriever:
        hits = retriever.search(given.query, given.top_k)
    for hit in hits:
        place = f":{hit.chunk.line}" if hit.chunk.line else f", page {hit.chunk.page}" if hit.chunk.page else ""
        print(f"{hit.rank}. {hit.chunk.source}{place} ({hit.score:.2f})\n   {' '.join(hit.chunk.text.split())}")
    print(doubt(hits), end="")


if __name__ == "__main__":
    main()
