"""How much of a document comes out: words, their order, rows of tables and headings, against texts that people vouch for.

    python benchmarks/reading.py FOLDER ... [--worst 10] [--json]

FOLDER holds, at any depth, documents and beside each `NAME.expected.md` (`plan.pdf` and `plan.pdf.expected.md`): its text
as Markdown, with `#` headings and tables of bars. Documents are read as `llmbench index` reads them. For each kind of file:

words     Of the expected words, the share that comes out, counted as often as expected (a multiset's recall). A word is a run
          of letters and digits after NFKC, in lower case; each Chinese, Japanese or Korean character is one. Markup, addresses
          of links and comments are no words. Markdown writes a cell that spans columns or rows once for each of them; a cell
          that repeats its left or upper neighbour counts once.
order     Of the words that occur once both in the expected and in the read text, the share that lies in the longest run that
          both have in the same order (longest increasing subsequence): columns woven into each other halve it.
rows      Of the expected rows of tables with words in two cells or more, how many are found whole: one line of the text has
          all of the row's cells, each with its words next to each other, in the row's order. Other words may stand between.
headings  Of the expected headings, how many are among the headings read: the same words, in any order. `more` is how many were
          read as headings that are not expected.

A file that is not read counts with nothing found. The sums of a kind are over its files; words and order are weighted by words.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from llmbench.recipe import SourceSpec
from llmbench.retrieval import Document
from llmbench.retrieval.reading import File, read_all, walk

EXPECTED = ".expected.md"
_WORD = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3005-\u30ff\u3130-\u318f\u31f0-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]|[^\\W_]+"
)
_MARKS = re.compile(r"[\u00ad\u064b-\u0652\u200b-\u200f\u2060\ufeff]")


@dataclass
class Counts:
    """What was expected, and what of it was found, in one file or several."""

    words: int = 0
    words_found: int = 0
    anchors: int = 0
    in_order: int = 0
    rows: int = 0
    rows_whole: int = 0
    headings: int = 0
    headings_found: int = 0
    headings_more: int = 0

    def add(self, other: Counts) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


@dataclass(frozen=True)
class Expected:
    """What a Markdown text holds, as lists of words."""

    words: list[str]
    rows: list[list[list[str]]]
    headings: list[list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="also list the N files with most missing, with what")
    parser.add_argument("--json", action="store_true", help="one JSON object with every file")
    options = parser.parse_args()
    results = [found for folder in options.folders for found in measured(folder)]
    if not results:
        sys.exit(f"no file there has a {EXPECTED} beside it")
    if options.json:
        print(json.dumps({"kinds": {k: asdict(c) for k, c in by_kind(results).items()}, "files": [asdict(r) for r in results]}))
        return
    print_table(by_kind(results))
    for result in sorted(results, key=lambda result: -result.lost)[: options.worst]:
        print_file(result)


@dataclass
class Result:
    """One file: what was counted, and what is missing."""

    name: str
    kind: str
    failure: str
    counts: Counts
    missing_words: list[str]
    missing_rows: list[str]
    missing_headings: list[str]
    more_headings: list[str]

    @property
    def lost(self) -> float:
        """Shares of words, rows and headings that are missing, added up."""
        c = self.counts
        pairs = ((c.words, c.words_found), (c.anchors, c.in_order), (c.rows, c.rows_whole), (c.headings, c.headings_found))
        return sum((whole - found) / whole for whole, found in pairs if whole)


def measured(folder: Path) -> Iterator[Result]:
    """Every document of a folder that has an expected text beside it."""
    texts = {path.with_name(path.name.removesuffix(EXPECTED)) for path in folder.rglob(f"*{EXPECTED}")}
    found = walk([SourceSpec(path=folder, exclude=[f"*{EXPECTED}"])])
    files = [file for file in found.files if file.path in texts]
    reasons = {folder / source: reason for source, reason in (*found.skipped, *found.unread)}
    for reading in read_all(files):
        document = reading.documents[0] if reading.documents else None
        yield compared(reading.file, document, reading.failure or "", folder)
    for path in sorted(texts - {file.path for file in files}):
        file = File(path, path.relative_to(folder).as_posix(), SourceSpec(path=folder))
        yield compared(file, None, reasons.get(path, "no such file"), folder)


def compared(file: File, document: Document | None, failure: str, folder: Path) -> Result:
    """One document against its expected text."""
    expected = parsed(Path(f"{file.path}{EXPECTED}").read_text("utf-8"))
    text = document.text if document is not None else ""
    words = words_of(text)
    missing = Counter(expected.words) - Counter(words)
    lines = [words_of(line) for line in text.split("\n")]
    rows_missing = [row for row in expected.rows if not any(holds(line, row) for line in lines)]
    read = Counter(tuple(sorted(words_of(heading.text))) for heading in (document.headings if document is not None else ()))
    wanted = Counter(tuple(sorted(heading)) for heading in expected.headings)
    anchors, in_order = ordered(expected.words, words)
    counts = Counts(
        words=len(expected.words),
        words_found=len(expected.words) - missing.total(),
        anchors=anchors,
        in_order=in_order,
        rows=len(expected.rows),
        rows_whole=len(expected.rows) - len(rows_missing),
        headings=wanted.total(),
        headings_found=(wanted & read).total(),
        headings_more=(read - wanted).total(),
    )
    lost = wanted - read
    return Result(
        name=file.source,
        kind=file.path.suffix.lower(),
        failure=failure,
        counts=counts,
        missing_words=[word for word, count in missing.items() for _ in range(count)],
        missing_rows=[" | ".join(" ".join(cell) for cell in row) for row in rows_missing],
        missing_headings=[" ".join(heading) for heading in expected.headings if tuple(sorted(heading)) in lost],
        more_headings=[" ".join(heading) for heading in (read - wanted)],
    )


def words_of(text: str) -> list[str]:
    """The words of a text."""
    return _WORD.findall(_MARKS.sub("", unicodedata.normalize("NFKC", text)).lower())


def parsed(markdown: str) -> Expected:
    """The words, rows and headings of a Markdown text."""
    words: list[str] = []
    rows: list[list[list[str]]] = []
    headings: list[list[str]] = []
    above: list[str] = []
    fenced = False
    for line in re.sub(r"<!--.*?-->", " ", markdown, flags=re.DOTALL).split("\n"):
        if line.startswith("```"):
            fenced = not fenced
        elif not fenced and line.startswith("|"):
            cells = [unmarked(cell) for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
            if all(re.fullmatch(r"\s*:?-+:?\s*", cell) for cell in cells):
                continue
            for at, cell in enumerate(cells):
                if not (at and cells[at - 1] == cell) and not (at < len(above) and above[at] == cell):
                    words += words_of(cell)
            row = [words_of(cell) for at, cell in enumerate(cells) if not (at and cells[at - 1] == cell)]
            row = [cell for cell in row if cell]
            rows += [row] if len(row) > 1 else []
            above = cells
        else:
            above = []
            found = words_of(line if fenced else unmarked(line))
            words += found
            if not fenced and found and re.match(r"#{1,6} ", line):
                headings.append(found)
    return Expected(words, rows, headings)


def unmarked(text: str) -> str:
    """Markdown without its marks: the words of links and pictures stay, their addresses go."""
    text = re.sub(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?:[^()\s]|\([^()]*\))*\)", r"\1", text)
    text = re.sub(r"<(https?://[^>\s]+)>", r"\1", text)
    text = re.sub(r"\*\*|__|~~|(?<!\w)\*(?=\S)|(?<=\S)\*(?!\w)|`", "", text)
    return re.sub(r"\\([_*#|<>\[\]()~`-])", r"\1", text).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def holds(line: Sequence[str], row: Sequence[Sequence[str]]) -> bool:
    """Whether a line has the cells of a row, one after another."""
    at = 0
    for cell in row:
        end = len(line) - len(cell)
        at = next((start + len(cell) for start in range(at, end + 1) if line[start : start + len(cell)] == cell), -1)
        if at < 0:
            return False
    return True


def ordered(expected: Iterable[str], read: Iterable[str]) -> tuple[int, int]:
    """How many words occur once in both, and how many of them lie in the longest common order."""
    expected, read = list(expected), list(read)
    once = {w for w, n in Counter(expected).items() if n == 1} & {w for w, n in Counter(read).items() if n == 1}
    places = {word: at for at, word in enumerate(read) if word in once}
    ends: list[int] = []
    for word in expected:
        if word in once:
            at = bisect_left(ends, places[word])
            ends[at : at + 1] = [places[word]]
    return len(once), len(ends)


def by_kind(results: Iterable[Result]) -> dict[str, Counts]:
    """The sums of each kind of file, and of all."""
    kinds: dict[str, Counts] = {}
    for result in results:
        for kind in (result.kind, "all"):
            kinds.setdefault(kind, Counts()).add(result.counts)
    return dict(sorted(kinds.items(), key=lambda item: (item[0] == "all", item[0])))


def print_table(kinds: dict[str, Counts]) -> None:
    print("| kind | words | found | order | rows whole | headings | more |")
    print("|---|---|---|---|---|---|---|")
    for kind, c in kinds.items():
        cells = (
            kind, c.words, share(c.words_found, c.words), share(c.in_order, c.anchors), f"{c.rows_whole} of {c.rows}",
            f"{c.headings_found} of {c.headings}", c.headings_more,
        )  # fmt: skip
        print("| " + " | ".join(map(str, cells)) + " |")


def share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def print_file(result: Result) -> None:
    c = result.counts
    print(f"\n{result.name}{': ' + result.failure if result.failure else ''}")
    print(
        f"  words {c.words_found} of {c.words}, order {share(c.in_order, c.anchors)}, rows {c.rows_whole} of {c.rows}, ", end=""
    )
    print(f"headings {c.headings_found} of {c.headings}, {c.headings_more} more")
    for what in ("missing_words", "missing_rows", "missing_headings", "more_headings"):
        found: list[str] = getattr(result, what)
        if found:
            divider = " " if what == "missing_words" else "\n    "
            print(f"  {what.replace('_', ' ')}:{divider}" + divider.join(entry[:200] for entry in found[:40]))


if __name__ == "__main__":
    main()
