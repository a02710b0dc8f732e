"""`llmbench raft`: training rows from questions and what a pipeline finds for them."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli.arguments import Json, Overrides, Pipeline
from llmbench.cli.terminal import print_json
from llmbench.errors import DataError, LlmbenchError

if TYPE_CHECKING:
    from llmbench.raft import Left, Row

__all__ = ["register"]

_SIGNS = r"[^\w./-]"
"""What a path in YAML may need quotes for."""
_KINDS = {
    "answered": "answered from their passages",
    "withheld": "abstention: correct passages withheld",
    "not found": "abstention: correct passages not found",
    "unanswerable": "abstention: not answered by the documents",
}


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command(epilog="Example: `llmbench raft rag/handbook.yaml rag/questions.jsonl --split train --output rows.jsonl`")(raft)


def raft(
    pipeline: Pipeline,
    questions: Annotated[
        Path, typer.Argument(metavar="QUESTIONS", help="Questions with answers: JSONL, or .json in SQuAD's format.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to write the rows (JSONL).", metavar="FILE")],
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option("--split", help="Only questions of this split.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Use at most N questions, spread over the file.")
    ] = None,
    withhold: Annotated[
        float,
        typer.Option("--withhold", min=0, max=1, help="Share of questions whose correct document is withheld from the search."),
    ] = 0.15,
    drop_not_found: Annotated[
        bool, typer.Option("--drop-not-found", help="Skip questions whose passage was not found.")
    ] = False,
    cite: Annotated[bool, typer.Option("--cite/--no-cite", help="End answers with the passage's number, as [n].")] = True,
    abstention: Annotated[
        str | None,
        typer.Option("--abstention", help="The answer for questions that the passages do not answer.", metavar="TEXT"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed for choosing the withheld questions.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file.")] = False,
    as_json: Json = False,
) -> None:
    """Make training rows from questions: the passages a pipeline finds, and the answer they support (RAFT).

    A model trained on these rows learns to read, cite and abstain with the prompts it will be served with.
    """
    _look_at(questions, output, abstention, overwrite)
    from rich.console import Console
    from rich.progress import track

    from llmbench import interrupts, recipe, workspace
    from llmbench import raft as making
    from llmbench.compare.questions import read
    from llmbench.recipe import CompareRecipe, QuestionSource, RagRecipe
    from llmbench.retrieval import Retriever
    from llmbench.runs.made import record

    document = recipe.load(pipeline, RagRecipe, overrides or [])
    asked = read(QuestionSource(path=questions, split=split, limit=limit))
    with interrupts.between_locks(), Retriever.open(document) as retriever:
        produced = making.rows(
            retriever,
            asked,
            withhold=withhold,
            not_found=not drop_not_found,
            cite=cite,
            abstention=making.ABSTENTION if abstention is None else abstention,
            seed=seed,
        )
        bar = Console(stderr=True)
        made = list(track(produced, "Searching", total=len(asked), console=bar, disable=not bar.is_terminal))
    rows = [one for one in made if isinstance(one, making.Row)]
    left = [one for one in made if isinstance(one, making.Left)]
    if not rows:
        raise DataError(f"{questions}: no question can be turned into a row. {_reasons(left)}")
    workspace.write_text(output, "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows))
    record(
        output, "raft", pipeline=document.origin, questions=str(questions.absolute()), split=split, rows=len(rows),
        withhold=withhold, seed=seed,
    )  # fmt: skip
    if as_json:
        _print(output, rows, left)
        return
    _tell(output, rows, left, split)
    pattern = str(CompareRecipe.model_fields["abstention"].default)
    if abstention is not None and not re.search(pattern, abstention, re.IGNORECASE):
        print("`llmbench compare` does not recognise this --abstention by default: set `abstention` in its recipe.")


def _look_at(questions: Path, out: Path, abstention: str | None, overwrite: bool) -> None:
    """Raises LlmbenchError for what cannot be done, before the index is opened."""
    if out.exists() and (out.is_dir() or not overwrite):
        how = "Name a file." if out.is_dir() else "Name another file, or overwrite it with --overwrite."
        raise LlmbenchError(f"{out} already exists. {how}")
    if abstention is not None and not abstention.strip():
        raise LlmbenchError("--abstention is empty. Give the sentence that the model should answer.")
    if out.exists() and questions.exists() and out.samefile(questions):
        raise LlmbenchError(f"--output {out} is the question file itself. Name another file.")
    if not questions.exists():
        raise DataError(f"{questions}: no such file. Name a question file.")


def _print(out: Path, rows: list[Row], left: list[Left]) -> None:
    kinds = {kind: sum(row.kind == kind for row in rows) for kind in _KINDS}
    reasons = [{"id": one.id, "reason": one.reason} for one in left]
    print_json({"file": str(out), "rows": len(rows), "kinds": kinds, "left_out": reasons})


def _tell(out: Path, rows: list[Row], left: list[Left], split: str | None) -> None:
    print(f"{out}: {len(rows):,} rows from {len(rows) + len(left):,} questions.")
    counts = Counter[str](row.kind for row in rows)
    for kind, words in _KINDS.items():
        if counts[kind]:
            print(f"  {counts[kind]:>6,}  {words}")
    if left:
        print(f"No rows: {_reasons(left)}")
    train = shlex.quote(f"data.train=[{{path: {json.dumps(str(out)) if re.search(_SIGNS, str(out)) else out}}}]")
    print(f"Train on it: llmbench train recipes/sft-lora.yaml name=mine {train}")
    if split is None:
        print(
            "Compare on other questions: a model already knows the answers it was trained on. --split selects part of a file."
        )


def _reasons(left: list[Left]) -> str:
    counts = Counter(one.reason for one in left).most_common()
    return "; ".join(f"{count:,} since {reason}" for reason, count in counts) + "."
