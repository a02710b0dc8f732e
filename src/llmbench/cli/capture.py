"""`llmbench capture`: the conversations that a server has kept, listed, exported and deleted."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import terminal
from llmbench.cli.arguments import Json
from llmbench.errors import LlmbenchError, MissingPackage

if TYPE_CHECKING:
    from llmbench.gateway.observing.records import CaptureStore

__all__ = ["register"]

File = Annotated[
    Path | None,
    typer.Option(help="The file, where `gateway.capture.path` names another than outputs/capture.sqlite.", show_default=False),
]


def register(cli: typer.Typer) -> None:
    """Adds the verb, and the verbs under it."""
    group = typer.Typer(
        no_args_is_help=True,
        help="List, export and delete the conversations that a server has captured.\n\n"
        "`llmbench serve` captures where its recipe has a section `gateway.capture`.",
        epilog="Example: `llmbench capture export --to conversations.jsonl`",
    )
    group.command("list", epilog="Example: `llmbench capture list --limit 50`")(list_records)
    group.command(epilog="Example: `llmbench capture export --to conversations.parquet`")(export)
    group.command(epilog="Example: `llmbench capture delete --user ann@example.org`")(delete)
    group.command(epilog="Example: `llmbench capture prune --days 7`")(prune)
    cli.add_typer(group, name="capture")


def list_records(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 20,
    file: File = None,
    as_json: Json = False,
) -> None:
    """List the newest records: when, which variant and key, and what was asked."""
    store = _opened(file)
    records = store.newest(limit) if store is not None else []
    if as_json:
        terminal.print_json([record.as_json() for record in records])
        return
    if store is None or not records:
        print("Nothing has been captured. Set gateway.capture in the serving recipe.")
        return
    rows = [["time", "request", "variant", "key", "vote", "asked", "answered"]]
    for record in records:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.at))
        asked = next((one["content"] for one in reversed(json.loads(record.messages)) if one["role"] == "user"), "")
        vote = {True: "up", False: "down", None: "-"}[record.vote]
        rows.append([when, record.request, record.variant, record.key or "-", vote, _line(asked), _line(record.answer)])
    terminal.listing(rows, shrink=(6, 5, 1))
    print(f"\n{store.count():,} records in {store.path}")


def export(
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where to write: a file that ends in .jsonl or .parquet.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file of this name.")] = False,
    file: File = None,
) -> None:
    """Write all records to a file, a row each: messages, passages, answer, variant, times and tokens."""
    kind = to.suffix
    if kind not in (".jsonl", ".parquet"):
        raise LlmbenchError(f"{to}: the format is unknown. Name a file that ends in .jsonl or .parquet")
    if to.exists() and not overwrite:
        raise LlmbenchError(f"{to} already exists. Choose another name, or add --overwrite")
    store = _opened(file)
    if store is None:
        raise LlmbenchError("Nothing has been captured. Set gateway.capture in the serving recipe.")
    count = _jsonl(store, to) if kind == ".jsonl" else _parquet(store, to)
    print(f"Wrote {count:,} records to {to}")


def delete(
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="The request's id (x-request-id).", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="NAME", help="The user, as clients name them.", show_default=False)
    ] = None,
    file: File = None,
    as_json: Json = False,
) -> None:
    """Delete the records of a request or of a user. Their bytes are overwritten."""
    if (request is None) == (user is None):
        raise LlmbenchError("Name what to delete: --request ID, or --user NAME")
    store = _opened(file)
    if store is None:
        count = 0
    elif request is not None:
        count = store.delete_request(request)
    else:
        assert user is not None
        count = store.delete_user(user)
    _say_deleted(count, as_json)


def prune(
    days: Annotated[float, typer.Option(min=0, help="Age in days from which records are deleted.")],
    file: File = None,
    as_json: Json = False,
) -> None:
    """Delete old records now. A running server deletes those older than gateway.capture.days every hour."""
    store = _opened(file)
    _say_deleted(0 if store is None else store.prune(days), as_json)


def _opened(file: Path | None) -> CaptureStore | None:
    """The file; None where there is none."""
    from llmbench.gateway.observing.records import CaptureStore, default_path

    path = file or default_path()
    if file is not None and not path.exists():
        raise LlmbenchError(f"{path} does not exist. Name the file of gateway.capture.path")
    return CaptureStore(path) if path.exists() else None


def _jsonl(store: CaptureStore, to: Path) -> int:
    from llmbench import workspace

    count = 0
    with workspace.atomic(to, private=True) as out:
        for record in store.every():
            out.write(json.dumps(record.as_json(), ensure_ascii=False) + "\n")
            count += 1
    return count


def _parquet(store: CaptureStore, to: Path) -> int:
    """Messages and passages are JSON texts there, since their fields differ from row to row."""
    from llmbench import workspace

    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackage("capture export", "datasets", "train") from error
    rows: list[dict[str, Any]] = [vars(record) for record in store.every()]
    texts = (
        "request",
        "conversation",
        "user",
        "key",
        "asked",
        "variant",
        "messages",
        "sources",
        "answer",
        "finish_reason",
        "trace",
        "vote_comment",
        "judge_comment",
    )
    numbers = ("at", "seconds", "first_seconds", "retrieval_seconds", "engine_seconds", "judge")
    schema = pyarrow.schema(
        [(name, pyarrow.string()) for name in texts]
        + [(name, pyarrow.float64()) for name in numbers]
        + [(name, pyarrow.bool_()) for name in ("complete", "redacted", "vote")]
        + [(name, pyarrow.int64()) for name in ("input_tokens", "output_tokens")]
    )
    with workspace.atomic(to, "wb", private=True) as out:
        parquet.write_table(pyarrow.Table.from_pylist(rows, schema), out)
    return len(rows)


def _line(text: Any) -> str:
    return " ".join(str(text).split())[:200]


def _say_deleted(count: int, as_json: bool) -> None:
    if as_json:
        terminal.print_json({"deleted": count})
    else:
        print(f"Deleted {count:,} record{'' if count == 1 else 's'}.")
