"""How much memory indexing takes, and how little of it more pages add: PDFs of a hundred pages, from files to a finished index.

    python benchmarks/index_memory.py PATH/scifact --pages 50000 [--words 60] [--work FOLDER]

Each page holds sentences of the BEIR folder's documents in an order of its own, so that no two pages are alike. Memory is read
ten times a second from /proc: resident pages of every process of the run summed (pages that they share are counted more than
once), and the same shared out (PSS). Then the same command once more, with nothing changed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from fpdf import FPDF

SHEETS = 100
EVERY = 0.1


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path, help="a BEIR folder, whose words fill the pages")
    arguments.add_argument("--pages", type=int, default=50_000)
    arguments.add_argument("--words", type=int, default=60, help="on a page")
    arguments.add_argument("--work", type=Path, default=Path("outputs/index-memory"))
    options = arguments.parse_args()
    work = options.work.resolve()
    files = written(options.data, work / f"files-{options.pages}-{options.words}", options.pages, options.words)
    shutil.rmtree(work / "home", ignore_errors=True)
    (work / "pages.yaml").write_text(f"name: pages\ndocuments: [{files}]\n", encoding="utf-8")
    print("| | pages | seconds | pages/s | peak RSS, MiB | peak PSS, MiB | MiB at a tenth, half, nine tenths of the time |")
    print("|---|---|---|---|---|---|---|")
    for name in ("first", "again"):
        seconds, curve, proportional = run(work)
        marks = ", ".join(f"{curve[min(len(curve) - 1, int(len(curve) * part))]:,.0f}" for part in (0.1, 0.5, 0.9))
        print(
            f"| {name} | {options.pages:,} | {seconds:,.1f} | {options.pages / seconds:,.1f} "
            f"| {max(curve):,.0f} | {max(proportional):,.0f} | {marks} |",
            flush=True,
        )


def written(data: Path, folder: Path, pages: int, words: int) -> Path:
    """The PDFs, made once."""
    if folder.exists():
        return folder
    rows = [json.loads(line) for line in (data / "corpus.jsonl").open(encoding="utf-8")]
    sentences = [s for row in rows for s in re.split(r"(?<=[.!?]) ", row["text"].encode("latin-1", "ignore").decode("latin-1"))]
    chance, half = random.Random(0), folder.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    for first in range(0, pages, SHEETS):
        document = FPDF()
        document.set_font("helvetica", size=11)
        for _ in range(min(SHEETS, pages - first)):
            document.add_page()
            document.multi_cell(0, text=page(sentences, chance, words))
        document.output(str(half / f"{first // SHEETS:05}.pdf"))
    half.rename(folder)
    return folder


def page(sentences: list[str], chance: random.Random, words: int) -> str:
    """Sentences until there are words enough."""
    text: list[str] = []
    while len(text) < words:
        text += chance.choice(sentences).split()
    return " ".join(text[:words])


def run(work: Path) -> tuple[float, list[float], list[float]]:
    """Seconds, and MiB over time: resident, and shared out."""
    environment = {**os.environ, "LLMBENCH_HOME": str(work / "home"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "llmbench", "index", str(work / "pages.yaml"), "--json"]
    began, resident, proportional = time.perf_counter(), [], []
    with (work / "index.json").open("w") as output, subprocess.Popen(command, env=environment, stdout=output) as process:
        while process.poll() is None:
            rss, pss = memory(process.pid)
            resident.append(rss)
            proportional.append(pss)
            time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(f"llmbench index ended with {process.returncode}")
    return time.perf_counter() - began, resident, proportional


def memory(root: int) -> tuple[float, float]:
    """MiB of a process and all below it."""
    rss = pss = 0
    for pid in tree(root):
        with suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss += int(line.split()[1])
                elif line.startswith("Pss:"):
                    pss += int(line.split()[1])
    return rss / 1024, pss / 1024


def tree(root: int) -> Iterator[int]:
    yield root
    with suppress(OSError):
        for task in Path(f"/proc/{root}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from tree(int(child))


if __name__ == "__main__":
    main()
