"""Retrieval side by side: llmbench, LlamaIndex, LangChain, txtai and the bare libraries, same embedder, same files.

    python -m venv PEERS && PEERS/bin/pip install torch==2.13.0+cpu transformers==5.19.* sentence-transformers==6.2.* \\
        faiss-cpu==1.15.* llama-index-core llama-index-vector-stores-faiss llama-index-embeddings-huggingface \\
        langchain-community langchain-huggingface langchain-text-splitters txtai
    python benchmarks/rag_peers.py PATH/scifact --peers PEERS [--documents 500] [--rounds 3] [--kills 5]

(or `make bench-rag DATA=FOLDER PEERS=FOLDER`). Abstracts become text files, one of them alone in its folder, to be filtered by.
Every job is a process of its own, arms take turns, imports and loading the model are not timed. Kills: while an arm saves over
and over it is killed (SIGKILL) at a random moment; then a new process opens the index and searches. Each begins with a whole
index.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from llmbench.retrieval.embedding import locate

HERE = Path(__file__).resolve().parent
ARMS = ("llmbench", "llama-index", "langchain", "txtai", "bare fp32", "bare bf16")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path, help="a BEIR folder: corpus.jsonl, queries.jsonl")
    arguments.add_argument("--peers", type=Path, help="their virtual environment; without it they are left out")
    arguments.add_argument("--arms", default=",".join(ARMS))
    arguments.add_argument("--documents", type=int, help="only so many")
    arguments.add_argument("--questions", type=int, default=100)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--work", type=Path, default=Path("outputs/rag-peers"))
    options = arguments.parse_args()
    work = options.work.resolve()
    shutil.rmtree(work, ignore_errors=True)
    files = corpus(options.data, work / "files", options.documents)
    questions = [json.loads(line)["text"] for line in (options.data / "queries.jsonl").open(encoding="utf-8")]
    arms = {
        name: Path(sys.executable) if name == "llmbench" else options.peers / "bin" / "python"
        for name in options.arms.split(",")
        if name == "llmbench" or options.peers
    }
    figures: dict[str, Any] = {name: {"rounds": []} for name in arms}
    for turn in range(options.rounds):
        for name, python in arms.items():
            index = work / "indexes" / name.replace(" ", "-")
            shutil.rmtree(index, ignore_errors=True)
            settings = {
                "arm": name, "model": str(locate("all-MiniLM-L6-v2")), "files": str(files), "index": str(index),
                "questions": questions[: options.questions],
            }  # fmt: skip
            done = {job: child(python, job, settings) for job in ("ingest", "query", "again")}
            done["size"] = (
                sum(path.stat().st_size for path in index.rglob("*") if path.is_file() and "cache" not in path.parts) / 2**20
            )
            figures[name]["rounds"].append(done)
            if turn == 0:
                figures[name]["correct"] = correct(python, settings, work, options.kills)
            (work / "figures.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")
            print(f"round {turn + 1}: {name} done", file=sys.stderr)
    print(table(figures, len(list(files.rglob("*.txt")))))


def corpus(data: Path, folder: Path, limit: int | None) -> Path:
    """A file for each abstract; the last one is called rare.txt and alone in its folder."""
    rows = [json.loads(line) for line in (data / "corpus.jsonl").open(encoding="utf-8")][:limit]
    for name in ("pages", "rare"):
        (folder / name).mkdir(parents=True)
    for number, row in enumerate(rows, 1):
        path = folder / "rare" / "rare.txt" if number == len(rows) else folder / "pages" / f"{row['_id']}.txt"
        path.write_text(f"{row['title']}\n\n{row['text']}\n", encoding="utf-8")
    return folder


def environment() -> dict[str, str]:
    source = str(HERE.parent / "src")
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": source, "TOKENIZERS_PARALLELISM": "false"}


def command(python: Path, job: str, settings: dict[str, Any]) -> list[str]:
    path = Path(settings["index"]).with_suffix(".settings.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings), encoding="utf-8")
    return [str(python), str(HERE / "rag_peers_arms.py"), settings["arm"], job, str(path)]


def child(python: Path, job: str, settings: dict[str, Any]) -> dict[str, Any]:
    """What a job prints, or the last line of how it failed."""
    done = subprocess.run(command(python, job, settings), capture_output=True, text=True, env=environment())
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        result: dict[str, Any] = json.loads(lines[-1])
        return result
    return {"failure": (done.stderr.strip().splitlines() or ["no output"])[-1][:200]}


def correct(python: Path, settings: dict[str, Any], work: Path, kills: int) -> dict[str, Any]:
    """Filter, delete and kill, on copies of files and index."""
    shutil.rmtree(work / "copy", ignore_errors=True)
    shutil.copytree(settings["files"], work / "copy" / "files")
    changed = {**settings, "files": str(work / "copy" / "files"), "index": str(work / "copy" / "index")}
    before = child(python, "ingest", changed)
    index, whole = Path(changed["index"]), work / "copy" / "whole"
    shutil.copytree(index, whole)
    outcomes: Counter[str] = Counter()
    chance = random.Random(0)
    for _ in range(kills):
        shutil.rmtree(index)
        shutil.copytree(whole, index)
        with subprocess.Popen(
            command(python, "save", changed), stdout=subprocess.PIPE, text=True, env=environment()
        ) as process:
            assert process.stdout is not None
            seen = any("saving" in line for line in iter(process.stdout.readline, ""))
            began = time.perf_counter()
            process.stdout.readline()  # the first save is whole: so long does one take
            once = time.perf_counter() - began
            time.sleep(chance.uniform(0, 2 * once))
            process.kill()
        if not seen:
            outcomes["cannot save"] += 1
            continue
        after = child(python, "query", changed)
        outcomes["whole" if "p50" in after else after["failure"][:80]] += 1
    shutil.rmtree(index)
    shutil.copytree(whole, index)
    settled = child(python, "ingest", changed)
    return {
        **child(python, "correct", changed), "kills": dict(outcomes),
        "passages before, after": [before.get("passages"), settled.get("passages")],
    }  # fmt: skip


def spread(values: list[float], digits: int = 1) -> str:
    """Median [least, most]."""
    if not values:
        return "-"
    return f"{statistics.median(values):,.{digits}f} [{min(values):,.{digits}f}, {max(values):,.{digits}f}]"


def table(figures: dict[str, Any], documents: int) -> str:
    """Speed and memory, then what each gives where it gets difficult."""
    lines = [
        "| | passages | passages/s | documents/s | again, s | passages after | p50, ms | p95, ms | peak MiB | index MiB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in figures.items():
        rounds = found["rounds"]
        good = [r["ingest"] for r in rounds if "seconds" in r["ingest"]]
        again = [r["again"] for r in rounds]
        cells = [
            str(good[0]["passages"]) if good else rounds[0]["ingest"]["failure"],
            spread([g["passages"] / g["seconds"] for g in good]),
            spread([documents / g["seconds"] for g in good]),
            spread([a["seconds"] for a in again if a.get("failure") is None], 2),
            str(again[0].get("failure") or again[0]["passages"]),
            spread([r["query"]["p50"] for r in rounds if "p50" in r["query"]]),
            spread([r["query"]["p95"] for r in rounds if "p95" in r["query"]]),
            spread([g["memory"] for g in good], 0),
            spread([r["size"] for r in rounds]),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| | a filter one document passes: hits of expected | delete | found after | killed while saving |"]
    lines.append("|---|---|---|---|---|")
    for name, found in figures.items():
        c = found["correct"]
        kills = ", ".join(f"{count} x {what}" for what, count in c["kills"].items())
        filtered = f"{c.get('filter')} of {c.get('expected')}"
        deleted = "done" if c.get("delete") is None else c["delete"]
        lines.append(f"| {name} | {filtered} | {c.get('failure') or deleted} | {c.get('found after delete')} | {kills} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
