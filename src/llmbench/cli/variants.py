"""`llmbench variants`: what a running server serves, changed while it answers."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

import typer

from llmbench.cli import completion, terminal
from llmbench.cli.arguments import Json
from llmbench.cli.running import Recipe, Socket, ask, at, show_shadows
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

_HELP = """List, add and remove the variants of a running `llmbench serve`, without a restart.

The serving document says what is served when the server starts and after `reload`; `add` and `remove` leave it as it is.
"""

Name = Annotated[str, typer.Argument(metavar="NAME", help="A variant's name.")]


def register(cli: typer.Typer) -> None:
    """Adds this verb, and the verbs under it."""
    epilog = "Examples: `llmbench variants list` · `llmbench variants add mine --adapter sft-lora` · `llmbench variants reload`"
    group = typer.Typer(help=_HELP, epilog=epilog, no_args_is_help=True)
    group.command("list", epilog="Example: `llmbench variants list`")(list_variants)
    group.command(epilog="Example: `llmbench variants add mine --adapter sft-lora`")(add)
    group.command(epilog="Example: `llmbench variants remove mine --drain 60`")(remove)
    group.command(epilog="Example: `llmbench variants reload --dry-run`")(reload)
    group.command(epilog="Example: `llmbench variants prune --dry-run`")(prune)
    cli.add_typer(group, name="variants")


def list_variants(recipe: Recipe = None, socket: Socket = None, as_json: Json = False) -> None:
    """List what is served: adapter, pipeline, state, parity, running requests; engines elsewhere; what shadows were asked."""
    told = ask(at(recipe, socket), "GET", "/variants")
    if as_json:
        print_json(told)
        return
    rows = [["variant", "adapter", "documents", "state", "parity", "requests"]]
    for row in told["variants"]:
        adapter = row["adapter"]["name"] if row["adapter"] else "-"
        rows.append([row["name"], adapter, row["rag"] or "-", row["state"], row["parity"] or "-", str(row["requests"])])
    terminal.listing(rows, shrink=(1, 2, 0), right=(5,))
    if told.get("engines"):
        print()
        engines = [["engine", "state", "requests", "reason"]]
        engines += [[one["url"], one["state"], str(one["requests"]), one["reason"] or ""] for one in told["engines"]]
        terminal.listing(engines, shrink=(3, 0), right=(2,))
    show_shadows(told.get("shadows", ()))
    print(f"\n{told['base_url']}" + ("" if told["engine"] == "running" else f" (engine: {told['engine']})"))


def add(
    name: Name,
    adapter: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run, or an adapter's folder.", show_default=False, autocompletion=completion.runs),
    ] = None,
    rag: Annotated[
        str | None,
        typer.Option(metavar="PIPELINE", help="A RAG pipeline.", show_default=False, autocompletion=completion.pipelines),
    ] = None,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="A system prompt.", show_default=False)] = None,
    recipe: Recipe = None,
    socket: Socket = None,
    as_json: Json = False,
) -> None:
    """Serve one more variant, once its adapter is loaded and proven. The document is left as it is."""
    from pydantic import ValidationError

    from llmbench.recipe import Variant

    given = {"name": name, "adapter": adapter, "rag": rag, "system": system}
    try:
        variant = Variant.model_validate({key: value for key, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise LlmbenchError(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None
    body = variant.model_dump(mode="json", exclude_unset=True)
    row = ask(at(recipe, socket), "POST", "/variants", body)
    if as_json:
        print_json(row)
        return
    proof = f", parity {row['parity']}" if row["parity"] else ""
    print(f"Serving {name}{proof}. The document is unchanged: add it there to keep it after a reload or a new start.")


def remove(
    name: Name,
    drain: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds for its answers to end, instead of gateway.shutdown_timeout.", show_default=False),
    ] = None,
    recipe: Recipe = None,
    socket: Socket = None,
    as_json: Json = False,
) -> None:
    """Serve a variant no longer: new requests get 404, running answers may end, then its adapter is unloaded."""
    query = f"?drain={drain:g}" if drain is not None else ""
    told = ask(at(recipe, socket), "DELETE", f"/variants/{quote(name, safe='')}{query}")
    if as_json:
        print_json(told)
        return
    cut = f" {told['cut']} answers took too long and were cut off." if told["cut"] else ""
    print(f"Removed {name}.{cut} The document is unchanged: remove it there too, or a reload or a new start serves it again.")


def reload(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would change.")] = False,
    recipe: Recipe = None,
    socket: Socket = None,
    as_json: Json = False,
) -> None:
    """Serve what the document says now, and print what that changes first.

    What needs a new start of the server is named and not applied. Exit code 1: something of the document is not served.
    """
    path = at(recipe, socket)
    told = ask(path, "POST", "/reload", {"dry_run": True})
    if not as_json:
        _differences(told)
    if not dry_run:
        before, told = told, ask(path, "POST", "/reload")
        late = {name: why for name, why in told["refused"].items() if before["refused"].get(name) != why}
        if not as_json:
            _refused(late)
            for url, why in told["engines_waiting"].items():
                print(f"wait    engine {url}: {why.removeprefix(f'{url} ')}. It joins when it answers")
            print("Done." if told["complete"] else "Done, except for what is named above.")
    if as_json:
        print_json(told)
    if not told["complete"]:
        raise typer.Exit(1)


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove the stored copies of adapters (outputs/adapters) that no running server has. Runs keep their adapters."""
    from llmbench.engine import store

    gone = store.prune(dry_run=dry_run)
    if as_json:
        print_json([{"id": id, "bytes": size} for id, size in gone])
        return
    for id, size in gone:
        print(f"{id}  {size / 1e6:,.1f} MB")
    verb = "Would remove" if dry_run else "Removed"
    print(f"{verb} {len(gone)} copies, {sum(size for _, size in gone) / 1e6:,.1f} MB" if gone else "Nothing to remove.")


def _differences(told: dict[str, Any]) -> None:
    names = [("add", "added"), ("remove", "removed"), ("change", "changed")]
    for word, key in names:
        for name in told[key]:
            print(f"{word:7} {name}")
        for name in told[f"routes_{key}"]:
            print(f"{word:7} route {name}")
        for url in told.get(f"engines_{key}", ()):
            print(f"{word:7} engine {url}")
    for field in told["restart"]:
        print(f"restart {field}: not applied, as it needs a new start of the server")
    _refused(told["refused"])
    if not any(told[key] for key in told.keys() - {"complete"}):
        print("The document lists what is served: nothing to add, remove or change.")


def _refused(reasons: dict[str, str]) -> None:
    for name, why in reasons.items():
        print(f"refuse  {name}: {why}")
