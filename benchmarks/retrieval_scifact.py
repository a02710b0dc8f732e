"""Dense retrieval on SciFact or another BEIR folder, through the whole pipeline: Markdown pages, passages, index, search.

    python benchmarks/retrieval_scifact.py PATH [--split train] [--max-tokens 200] [--json FILE]

A document's rank is that of its best passage. The average is over all judged queries, and the interval is a bootstrap over
them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from llmbench import retrieval, workspace
from llmbench.recipe import ChunkingSpec, RagRecipe, SourceSpec
from llmbench.retrieval import evaluation


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=Path, help="a BEIR folder: corpus.jsonl, queries.jsonl, qrels/")
    arguments.add_argument("--split", default="train")
    arguments.add_argument("--max-tokens", type=int, default=200)
    arguments.add_argument("--json", type=Path, help="also write the figures there")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLMBENCH_HOME"] = folder
        measure(options.path, options.split, options.max_tokens, Path(folder), options.json)


def measure(path: Path, split: str, max_tokens: int, folder: Path, output: Path | None) -> None:
    collection, count = evaluation.read(path, split), 0
    pages = folder / "pages"
    pages.mkdir()
    for count, (identity, title, text) in enumerate(evaluation.corpus(path), 1):  # noqa: B007 - told below
        (pages / f"{identity}.md").write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
    chunking = ChunkingSpec(max_tokens=max_tokens, overlap=min(20, max_tokens // 4))
    recipe = RagRecipe(name="benchmark", documents=[SourceSpec(path=pages)], chunking=chunking)
    cpu = time.process_time()
    report = retrieval.build(recipe)
    cpu = time.process_time() - cpu
    with retrieval.Retriever.open(recipe) as retriever:
        start = time.perf_counter()
        run = {query: ranked(retriever, text) for query, text in collection.queries.items()}
        seconds = time.perf_counter() - start
    values = evaluation.measure(run, collection.qrels)
    ndcg, recall = values["nDCG@10"], values["R@100"]
    mean = evaluation.estimated(ndcg, collection.pages)
    figures = {
        "documents": count,
        "passages": report.chunks,
        "queries": len(ndcg),
        "nDCG@10": f"{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]",
        "Recall@100": f"{sum(recall.values()) / len(recall):.4f}",
        "index, s": f"{report.seconds:.1f}",
        "index, CPU s": f"{cpu:.1f}",
        "documents/s": f"{count / report.seconds:.1f}",
        "queries/s": f"{len(run) / seconds:.1f}",
    }
    print("| " + " | ".join(figures) + " |")
    print("|" + "---|" * len(figures))
    print("| " + " | ".join(map(str, figures.values())) + " |")
    packages = ("sentence-transformers", "faiss-cpu", "torch", "transformers")
    embedder = recipe.embedder.model_name_or_path
    print(f"\n{path.name}/{split}, passages of {max_tokens} tokens, {embedder}, {os.cpu_count()} cores; ", end="")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    if output is not None:
        workspace.write_json(output, figures)


def ranked(retriever: retrieval.Retriever, query: str) -> list[str]:
    """The best 100 documents: enough passages are asked for that each document's best one is among them."""
    return list(dict.fromkeys(Path(hit.chunk.source).stem for hit in retriever.search(query, 400)))[:100]


if __name__ == "__main__":
    main()
