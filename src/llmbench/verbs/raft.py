"""`llmbench raft`: training rows from questions and what a pipeline finds for them."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.errors import DataError, LlmbenchError
from llmbench.verbs import completion

if TYPE_CHECKING:
    from llmbench.compare.raft import Left, Row

__all__ = ["register"]

_SIGNS = r"[^\w./-]"
"""What a path in YAML may need quotes for."""
_KINDS = {
    "answered": "answered from their passages",
    "withheld": "right passages withheld, so that the answer is to abstain",
    "not found": "right passages not found, likewise",
    "unanswerable": "not answered by the documents, likewise",
}


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command(epilog="Example: `llmbench raft rag/handbook.yaml rag/questions.jsonl --split train --out rows.jsonl`")(raft)


def raft(
    pipeline: Annotated[
        str,
        typer.Argument(
            help="The RAG pipeline that the model will be served with.",
            metavar="PIPELINE",
            autocompletion=completion.pipelines,
        ),
    ],
    questions: Annotated[Path, typer.Argument(help="Questions with their values: JSONL, or a .json file like SQuAD's.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the rows (JSONL).", metavar="FILE")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Fields of the pipeline to change: key=value.", metavar="[key=value]...")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only questions of this split.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, spread evenly over the file.")] = None,
    withhold: Annotated[
        float,
        typer.Option("--withhold", min=0, max=1, help="Share of questions whose right document is kept out of the search."),
    ] = 0.15,
    drop_not_found: Annotated[
        bool, typer.Option("--drop-not-found", help="Leave out questions of which no right passage is found.")
    ] = False,
    cite: Annotated[bool, typer.Option("--cite/--no-cite", help="End answers with the right passage's number, as [n].")] = True,
    abstention: Annotated[
        str | None, typer.Option("--abstention", help="The answer where the passages do not tell.", metavar="TEXT")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of which questions are withheld.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the counts as one JSON document.")] = False,
) -> None:
    """Make training rows from questions: the passages a pipeline finds, and the answer they warrant (RAFT).

    A model trained on them reads, cites and abstains with the very prompts it will be served with.
    """
    _look_at(questions, out, abstention, force)
    from rich.console import Console
    from rich.progress import track

    from llmbench import recipe, workspace
    from llmbench.compare import raft as making
    from llmbench.compare.questions import read
    from llmbench.recipe import CompareRecipe, QuestionSource, RagRecipe
    from llmbench.retrieval import Retriever

    document = recipe.load(pipeline, RagRecipe, overrides or [])
    asked = read(QuestionSource(path=questions, split=split, limit=limit))
    with Retriever.open(document) as retriever:
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
        raise DataError(f"{questions}: no question makes a row. {_reasons(left)}")
    workspace.write_text(out, "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows))
    if as_json:
        kinds = {kind: sum(row.kind == kind for row in rows) for kind in _KINDS}
        reasons = [{"id": one.id, "reason": one.reason} for one in left]
        print(json.dumps({"file": str(out), "rows": len(rows), "kinds": kinds, "left_out": reasons}, indent=2))
        return
    _tell(out, rows, left, split)
    pattern = str(CompareRecipe.model_fields["abstention"].default)
    if abstention is not None and not re.search(pattern, abstention, re.IGNORECASE):
        print("A comparison does not know this --abstention as one: set `abstention` in its recipe.")


def _look_at(questions: Path, out: Path, abstention: str | None, force: bool) -> None:
    """Raises LlmbenchError for what cannot be done, before the index is opened."""
    if out.exists() and (out.is_dir() or not force):
        how = "Name a file." if out.is_dir() else "Name another file, or overwrite it with --force."
        raise LlmbenchError(f"{out} already exists. {how}")
    if abstention is not None and not abstention.strip():
        raise LlmbenchError("--abstention is empty: a model cannot be taught to answer nothing. Give it a sentence.")
    if out.exists() and questions.exists() and out.samefile(questions):
        raise LlmbenchError(f"{out} is the file of questions. Name another file for the rows.")
    if not questions.exists():
        raise DataError(f"{questions} is not there. Name a file of questions.")


def _tell(out: Path, rows: list[Row], left: list[Left], split: str | None) -> None:
    print(f"{out}: {len(rows):,} rows of {len(rows) + len(left):,} questions.")
    counts = Counter[str](row.kind for row in rows)
    for kind, words in _KINDS.items():
        if counts[kind]:
            print(f"  {counts[kind]:>6,}  {words}")
    if left:
        print(f"No rows: {_reasons(left)}")
    train = shlex.quote(f"data.train=[{{path: {json.dumps(str(out)) if re.search(_SIGNS, str(out)) else out}}}]")
    print(f"Train on it: llmbench train recipes/sft-lora.yaml name=mine {train}")
    if split is None:
        print("Compare on questions that are not among these: what was taught is no proof. --split takes a part of a file.")


def _reasons(left: list[Left]) -> str:
    counts = Counter(one.reason for one in left).most_common()
    return "; ".join(f"{count:,} since {reason}" for reason, count in counts) + "."
