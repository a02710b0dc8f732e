"""A million vectors: recall, latency, opening, filters, deletes and tails of the approximate index, grown from real vectors.

    python benchmarks/vectors_million.py DATA --rows 1000000

DATA holds BEIR folders (corpus.jsonl, queries.jsonl); their texts are embedded once with the packaged all-MiniLM-L6-v2, and
kept in --work with everything else. Rows are grown from these vectors: each lies between a real vector and one of its ten
nearest, moved along the difference of two others by so much that, at the size of the real set, the distances to the nearest
neighbour have the median of the real ones. Queries are the collections' own, embedded. `--check` prints how the grown set
and the real one compare at equal size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmbench.retrieval.store.vectors.exact import exact
from llmbench.retrieval.store.vectors.nearest import Nearest, Plan, Selection
from llmbench.retrieval.store.vectors.tuning import build, made_queries

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]
BLOCK = 8192


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path, help="a folder of BEIR folders, or a .npz with `vectors` and `queries`")
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--work", type=Path, default=Path("outputs/vectors"), help="where vectors and index lie")
    arguments.add_argument("--index", choices=["ivf", "hnsw"], default="ivf")
    arguments.add_argument("--check", action="store_true", help="compare grown and real vectors at equal size, and stop")
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--part", choices=["build", "open"], help=argparse.SUPPRESS)
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    real, queries = real_vectors(options.data, options.work / "real.npz")
    if options.check:
        check(real, queries)
        return
    path = options.work / f"vectors-{options.rows}.bin"
    if not path.exists():
        grow(real, options.rows, path, spread(real))
    vectors = mapped(path, real.shape[1])
    index = options.work / f"nearest-{options.rows}-{options.index}.faiss"
    match options.part:
        case "build":
            built(vectors, index, options.index)
        case "open":
            print(json.dumps(measured(vectors, queries, index)))
        case _:
            figures: dict[str, Any] = {}
            for part in ("build", "open"):
                if part == "build" and index.with_suffix(".json").exists():
                    continue
                command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                figures.update(json.loads(done.stdout.splitlines()[-1]) if part == "open" else {})
            figures = {**json.loads(index.with_suffix(".json").read_text()), **figures}
            for name, value in figures.items():
                print(f"| {name} | {value} |")
            if options.json:
                options.json.write_text(json.dumps(figures, indent=1))


def real_vectors(data: Path, cache: Path) -> tuple[Floats, Floats]:
    """Vectors of texts and of the questions asked of them, computed once."""
    if data.suffix == ".npz":
        cache = data
    if not cache.exists():
        from llmbench.recipe import EmbedderSpec
        from llmbench.retrieval.embedding import Embedder

        embedder, texts, questions = Embedder(EmbedderSpec()), [], []
        for corpus in sorted(data.glob("*/corpus.jsonl")):
            rows = [json.loads(line) for line in corpus.open(encoding="utf-8")]
            texts += [f"{row.get('title') or ''}\n{row['text']}" for row in rows if row["text"].strip()]
            questions += [json.loads(line)["text"] for line in (corpus.parent / "queries.jsonl").open(encoding="utf-8")]
        np.savez(cache, vectors=embedder.embed(texts), queries=embedder.embed(questions))
    with np.load(cache, allow_pickle=False) as saved:
        vectors = np.unique(saved["vectors"], axis=0)  # the same text twice would be its own nearest
        return vectors, saved["queries"]


def units(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def neighbours(vectors: Floats, k: int) -> Rows:
    """The k nearest other rows of each row."""
    found = Nearest().search(vectors, vectors, k + 1)[1]
    keep = found != np.arange(len(vectors))[:, None]
    keep[keep.all(axis=1), -1] = False
    return np.asarray(found[keep].reshape(len(vectors), k))


def grown(real: Floats, near: Rows, n: int, noise: float, rng: np.random.Generator) -> Floats:
    """n vectors between neighbours, moved by `noise` along differences of others."""
    start = rng.integers(0, len(real), n)
    other = near[start, rng.integers(0, near.shape[1], n)]
    share = rng.uniform(0, 1, (n, 1)).astype(np.float32)
    away = units(real[rng.integers(0, len(real), n)] - real[rng.integers(0, len(real), n)] + np.float32(1e-6))
    return units((1 - share) * real[start] + share * real[other] + np.float32(noise) * away)


def closeness(vectors: Floats) -> Floats:
    """The cosine of each row with its nearest other row."""
    scores = Nearest().search(vectors, vectors[:2000], 2)[0]
    return scores[:, 1]


def spread(real: Floats) -> float:
    """The noise at which as many grown vectors as there are real ones lie as close together as these, in the median."""
    near, target = neighbours(real, 10), float(np.median(closeness(real)))
    low, high = 0.0, 2.0
    for _ in range(8):
        noise = (low + high) / 2
        closer = float(np.median(closeness(grown(real, near, len(real), noise, np.random.default_rng(1))))) > target
        low, high = (noise, high) if closer else (low, noise)
    return (low + high) / 2


def record(dim: int) -> np.dtype[Any]:
    return np.dtype([("id", "<i8"), ("crc", "<u4"), ("pad", "<u4"), ("vector", "<f4", (dim,))])


def mapped(path: Path, dim: int) -> Floats:
    return np.asarray(np.memmap(path, record(dim), "r")["vector"])


def grow(real: Floats, n: int, path: Path, noise: float) -> None:
    near, rng = neighbours(real, 10), np.random.default_rng(0)
    print(f"growing {n:,} of {len(real):,}, noise {noise:.3f}", file=sys.stderr)
    with path.with_suffix(".tmp").open("wb") as file:
        for first in range(0, n, BLOCK):
            block = np.zeros(min(BLOCK, n - first), record(real.shape[1]))
            block["id"] = np.arange(first, first + len(block)) + 1
            block["vector"] = grown(real, near, len(block), noise, rng)
            file.write(block.tobytes())
    path.with_suffix(".tmp").rename(path)


def check(real: Floats, queries: Floats) -> None:
    """Distances and recall of the grown set and the real one, at equal size."""
    noise = spread(real)
    made = grown(real, neighbours(real, 10), len(real), noise, np.random.default_rng(2))
    print(f"{len(real):,} vectors, noise {noise:.3f}\n\n| | real | grown |\n|---|---|---|")
    first, tenth = ([Nearest().search(v, queries, k)[0][:, -1] for v in (real, made)] for k in (1, 10))
    rows: list[tuple[str, list[Floats]]] = [
        ("nearest other vector, cosine at 5, 50, 95 %", [closeness(real), closeness(made)]),
        ("question's nearest, cosine at 5, 50, 95 %", first),
        ("question's tenth, cosine at 5, 50, 95 %", tenth),
    ]
    for name, both in rows:
        print(f"| {name} |", " | ".join(" ".join(f"{x:.3f}" for x in np.quantile(v, [0.05, 0.5, 0.95])) for v in both), "|")
    indexes = [build(vectors, kind="ivf") for vectors in (real, made)]
    print("| settled |", " | ".join(f"{n.plan.probes} of {n.plan.lists}, x{n.plan.factor}" for n in indexes if n.plan), "|")
    for asked, name in ((queries, "questions"), (None, "made queries")):
        for probes in (1, 2, 4, 8, 16, 32):
            cells = []
            for nearest, vectors in zip(indexes, (real, made), strict=True):
                assert nearest.plan is not None
                some = asked if asked is not None else made_queries(vectors, np.arange(len(vectors)), np.random.default_rng(9))
                changed = Plan(**{**asdict(nearest.plan), "probes": probes, "factor": 2})
                truth = Nearest().search(vectors, some, 10)[1]
                found = Nearest(nearest.index, changed).candidates(some, 200, Selection(len(vectors)))
                cells.append(f"{recall(found, truth):.3f}")
            print(f"| recall@10, {name}, {probes} cells |", " | ".join(cells), "|")


def recall(found: Rows, truth: Rows) -> float:
    return float(np.mean([np.isin(true, some).mean() for some, true in zip(found, truth, strict=True)]))


def anonymous() -> float:
    """MB of this process's memory that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def built(vectors: Floats, path: Path, kind: Any) -> None:
    """Builds and saves; leaves the plan and what it cost beside the index."""
    peak, over = [anonymous()], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            peak.append(anonymous())

    threading.Thread(target=watch, daemon=True).start()
    began, cpu = time.perf_counter(), time.process_time()
    stages: dict[str, float] = {}

    def progress(stage: str, done: int, total: int) -> None:
        stages.setdefault(stage, time.perf_counter() - began)
        print(f"\r{stage} {done:,}/{total:,}  {time.perf_counter() - began:.0f} s   ", end="", file=sys.stderr)

    nearest = build(vectors, kind=kind, progress=progress)
    plan = nearest.save(path)
    over.set()
    figures = {
        "plan": asdict(plan),
        "settled": str(plan),
        "build, s": round(time.perf_counter() - began),
        "build, CPU s": round(time.process_time() - cpu),
        "stages began at, s": {stage: round(at) for stage, at in stages.items()},
        "peak memory of its own, MB": round(max(peak)),
        "peak RSS with mapped pages, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "file, MB": round(path.stat().st_size / 1e6, 1),
        "threads": os.environ.get("OMP_NUM_THREADS", os.cpu_count()),
    }
    path.with_suffix(".json").write_text(json.dumps(figures))


def timed(search: Callable[[Floats], Rows], queries: Floats) -> tuple[list[Rows], str]:
    """Results one query at a time, and how long they took: wall and CPU."""
    wall, cpu, found = [], [], []
    for query in queries:
        began, used = time.perf_counter(), time.process_time()
        found.append(search(query[None])[0])
        wall.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - used) * 1e3)
    spots = [*np.quantile(wall, [0.5, 0.95]), *np.quantile(cpu, [0.5, 0.95])]
    return found, "p50 {:.1f} ms, p95 {:.1f} ms (CPU {:.1f}, {:.1f})".format(*spots)


def measured(vectors: Floats, questions: Floats, path: Path) -> dict[str, str]:
    """Opening and searching, in a process that did not build it."""
    plan = Plan(**json.loads(path.with_suffix(".json").read_text())["plan"])
    rng, n = np.random.default_rng(5), len(vectors)
    import faiss  # noqa: F401 - its import is no part of opening

    before, began, cpu = anonymous(), time.perf_counter(), time.process_time()
    nearest = Nearest.load(path, plan)
    figures = {
        "open, s": f"{time.perf_counter() - began:.2f} (CPU {time.process_time() - cpu:.2f})",
        "open, memory of its own, MB": f"{anonymous() - before:.0f}",
    }
    questions = questions[rng.permutation(len(questions))[:200]]
    made = made_queries(vectors, np.arange(n), rng, 200)
    for name, asked in (("questions", questions), ("made queries", made)):
        nearest.search(vectors, asked[:5], 10)
        for k in (10, 100):
            found, times = timed(lambda q, k=k: nearest.search(vectors, q, k)[1], asked)  # type: ignore[misc]
            truth = Nearest().search(vectors, asked, k)[1]
            figures[f"{name}, k {k}"] = f"recall {recall(np.stack(found), truth):.4f}, {times}"
    asked = questions[:60]
    cells = vectors[np.sort(rng.choice(n, 50, replace=False))]
    subject = np.concatenate([(vectors[i : i + BLOCK] @ cells.T).argmax(axis=1) for i in range(0, n, BLOCK)])
    for name, rows in {
        **{f"filter {s:g}, at random": np.sort(rng.choice(n, int(n * s), replace=False)) for s in SHARES},
        "filter on 10 of 50 subjects": np.flatnonzero(subject < 10),
        "filter on 25 of 50 subjects": np.flatnonzero(subject < 25),
    }.items():
        found, times = timed(lambda q, rows=rows: nearest.search(vectors, q, 10, rows=rows)[1], asked)  # type: ignore[misc]
        truth = Nearest().search(vectors, asked, 10, rows=rows)[1]
        figures[f"{name} ({len(rows):,} rows)"] = f"recall {recall(np.stack(found), truth):.4f}, {times}"
    for name, dead in {
        "deleted 1 %, at random": np.sort(rng.choice(n, n // 100, replace=False)),
        "deleted 20 %, at random": np.sort(rng.choice(n, n // 5, replace=False)),
        "deleted the 50 nearest of each": np.unique(np.concatenate(exact(vectors, asked, 50))),
    }.items():
        found, times = timed(lambda q, dead=dead: nearest.search(vectors, q, 10, dead=dead)[1], asked)  # type: ignore[misc]
        assert not np.isin(np.stack(found), dead).any()
        truth = Nearest().search(vectors, asked, 10, dead=dead)[1]
        figures[name] = f"recall {recall(np.stack(found), truth):.4f}, {times}"
    for tail in (10_000, 50_000):
        more = np.concatenate([vectors, vectors[:tail]])
        found, times = timed(lambda q, more=more: nearest.search(more, q, 10)[1], asked)  # type: ignore[misc]
        figures[f"{tail:,} rows behind"] = times
    for few in (1_000, 5_000, 10_000, 20_000, 50_000):
        rows = np.sort(rng.choice(n, few, replace=False))
        figures[f"exact over {few:,} chosen rows"] = timed(
            lambda q, rows=rows: Nearest().search(vectors, q, 10, rows=rows)[1],  # type: ignore[misc]
            asked[:20],
        )[1]
    return figures


SHARES = (0.5, 0.2, 0.05, 0.01, 4e-3, 1e-3, 1e-4)

if __name__ == "__main__":
    main()
