"""Measure how well a pipeline finds the documents that answer judged questions.

python examples/evaluate_pipeline.py rag/handbook.yaml questions.jsonl --split test

A question is a line such as {"id": "q1", "question": "...", "source": "products/elwa-speaker.md"}; a BEIR folder or TREC qrels
do as well. Needs llmbench[rag].
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llmbench import recipe, retrieval
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Retriever, evaluation


def main() -> None:
    """Builds the index, asks every question in every way, and prints nDCG@10 with its interval."""
    parser = argparse.ArgumentParser(description="Measure a pipeline with judged questions.")
    parser.add_argument("pipeline")
    parser.add_argument("questions", type=Path)
    parser.add_argument("--split")
    given = parser.parse_args()

    pipeline = recipe.load(given.pipeline, RagRecipe)
    collection = evaluation.read(given.questions, given.split)
    retrieval.build(pipeline)
    with Retriever.open(pipeline) as retriever:
        found = evaluation.evaluate(retriever, collection)

    print(f"{len(collection.queries)} questions, {found.documents} documents")
    report = evaluation.report(collection, found)
    for row in report.rows:
        score = row.of[evaluation.HEADLINE]
        marked = " (the pipeline as it is)" if row.name == report.reference else ""
        print(f"{row.name}: {evaluation.HEADLINE} {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}]{marked}")


if __name__ == "__main__":
    main()
