"""Indexing a folder of PDF reports: time, memory, what was skipped, and what three searches find.

python benchmarks/retrieval_sec10q.py PATH [QUERY ...]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from llmbench import retrieval
from llmbench.recipe import RagRecipe

QUERIES = (
    "How much did Apple spend on repurchasing its common stock?",
    "What were Amazon Web Services net sales in the third quarter of 2022?",
    "Why did NVIDIA's Data Center revenue grow?",
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=Path, help="a folder of PDF files")
    arguments.add_argument("queries", nargs="*", default=QUERIES)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMBENCH_HOME"] = folder
        measure(RagRecipe(name="benchmark", documents=[options.path]), options.queries)


def measure(recipe: RagRecipe, queries: list[str]) -> None:
    cpu = time.process_time()
    report = retrieval.build(recipe)
    cpu = time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    again = retrieval.build(recipe)
    with retrieval.Retriever.open(recipe) as retriever:
        documents = [retriever.document(source) for source, _, _ in retriever.sources()]
        figures = {
            "files": len(documents),
            "pages": sum(len(document.pages) for document in documents),
            "characters": sum(len(document.text) for document in documents),
            "passages": report.chunks,
            "skipped": len(report.skipped),
            "index, s": f"{report.seconds:.1f}",
            "index, CPU s (PDF readers apart)": f"{cpu:.1f}",
            "again, s": f"{again.seconds:.1f}",
            "peak memory, MiB": f"{peak:.0f}",
        }
        print("| " + " | ".join(figures) + " |")
        print("|" + "---|" * len(figures))
        print("| " + " | ".join(map(str, figures.values())) + " |\n")
        for source, reason in report.skipped:
            print(f"skipped {source}: {reason}")
        for query in queries:
            print(f"- {query}")
            for hit in retriever.search(query, 3):
                text = " ".join(hit.chunk.text.split())[:220]
                print(f"  {hit.rank}. {hit.score:.3f} {hit.chunk.source} page {hit.chunk.page}: {text}")


if __name__ == "__main__":
    main()
