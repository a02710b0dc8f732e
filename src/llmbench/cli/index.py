"""`llmbench index`: the commands that make an index, look after it, and list what indexes there are."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from llmbench import assets, interrupts
from llmbench.cli import index_flags
from llmbench.cli.arguments import Json, Overrides, Pipeline
from llmbench.cli.listing import Listing
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmbench.recipe import RagRecipe

__all__ = ["register"]

_EXAMPLES = "Examples: `llmbench index rag/handbook.yaml` · `llmbench index verify rag/handbook.yaml` · `llmbench index list`"

_Engine = Annotated[
    Literal["local", "ray"],
    typer.Option("--engine", help="ray: read and embed on the machines of a Ray cluster (RAY_ADDRESS)."),
]
_Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait while another process writes the index.")]


class _Index(Listing):
    """`index PIPELINE` is short for `index build PIPELINE`, also where an option comes first."""

    default = "build"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """What begins with neither a command nor `--help` is for `build`, or has a flag that is a command now."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = [self.default, *args] if ctx.resilient_parsing else index_flags.translated(self._spelled(args))
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Reading and embedding have threads, which Ctrl-C is to end in order."""
        with interrupts.between_locks():
            return super().invoke(ctx)

    def _spelled(self, args: list[str]) -> list[str]:
        """Raises where the first word is no file and almost a command."""
        near = get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
        if near and not args[0].startswith("-") and assets.named(args[0], Path.cwd()) is None:
            raise LlmbenchError(f"{args[0]} is neither a command nor a file. Did you mean: llmbench index {near[0]}")
        return args

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The commands, the pipelines, and the options of `build`."""
        found = [*super().shell_complete(ctx, incomplete), *self.commands[self.default].shell_complete(ctx, incomplete)]
        return list({item.value: item for item in found}.values())


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    group = typer.Typer(
        cls=_Index,
        no_args_is_help=True,
        subcommand_metavar="[PIPELINE | COMMAND PIPELINE]",
        help="Bring a pipeline's index up to date with its documents; verify, repair, compact or list indexes.\n\n"
        "`llmbench index PIPELINE` is short for `llmbench index build PIPELINE`, which also takes a file that is named like "
        "a command.",
        epilog=_EXAMPLES,
    )
    group.command(epilog="Example: `llmbench index build rag/handbook.yaml`")(build)
    group.command(epilog="Example: `llmbench index verify rag/handbook.yaml --absent 'Jane Roe'`")(verify)
    group.command(epilog="Example: `llmbench index repair rag/handbook.yaml`")(repair)
    group.command(epilog="Example: `llmbench index compact rag/handbook.yaml`")(compact)
    group.command(epilog="Example: `llmbench index delete rag/handbook.yaml --source 'hr/*'`")(delete)
    group.command(epilog="Example: `llmbench index use rag/handbook.yaml 2`")(use)
    group.command(epilog="Example: `llmbench index prune rag/handbook.yaml`")(prune)
    group.command(epilog="Example: `llmbench index report rag/handbook.yaml --fail-under 95`")(report)
    group.command("list", epilog="Example: `llmbench index list`")(list_indexes)
    cli.add_typer(group, name="index")


def build(
    pipeline: Pipeline,
    overrides: Overrides = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Re-chunk and re-embed everything; searches use the old index meanwhile.")
    ] = False,
    stay: Annotated[
        bool, typer.Option("--stay", help="With --rebuild: keep the old index active until `llmbench index use`.")
    ] = False,
    engine: _Engine = "local",
    wait: _Wait = 0,
    as_json: Json = False,
) -> None:
    """Bring a pipeline's index up to date with its documents; reads and embeds only what changed.

    Exit code 0: done; 1: nothing to search; 2: an error.
    """
    recipe = _load(pipeline, overrides)
    if stay and not rebuild:
        raise LlmbenchError(f"--stay needs --rebuild. Run: llmbench index build {pipeline} --rebuild --stay")
    from llmbench.cli import index_build

    index_build.build(recipe, pipeline, rebuild=rebuild, stay=stay, engine=engine, wait=wait, as_json=as_json)


def verify(
    pipeline: Pipeline,
    overrides: Overrides = None,
    absent: Annotated[
        list[str] | None,
        typer.Option(
            "--absent",
            help="Also verify that this text and its words are gone from every file of the index; repeatable.",
            metavar="TEXT",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify every row, vector and word of an index; changes nothing.

    Exit code 0: no problems; 1: a problem, or an --absent text was found; 2: an error.
    """
    from llmbench.cli import index_care

    index_care.verify(_load(pipeline, overrides), absent or [], as_json=as_json)


def repair(pipeline: Pipeline, overrides: Overrides = None, wait: _Wait = 0, as_json: Json = False) -> None:
    """Repair an index, as far as it can be rebuilt from its stored documents."""
    from llmbench.cli import index_care

    index_care.repair(_load(pipeline, overrides), wait, as_json=as_json)


def compact(pipeline: Pipeline, overrides: Overrides = None, wait: _Wait = 0, as_json: Json = False) -> None:
    """Rewrite an index without deleted data."""
    from llmbench.cli import index_care

    index_care.compact(_load(pipeline, overrides), wait, as_json=as_json)


def delete(
    pipeline: Pipeline,
    overrides: Overrides = None,
    sources: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="Delete documents by source; * and ? stand for any characters; repeatable.",
            metavar="SOURCE",
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option("--where", help="Delete documents by a filter, such as '{\"year\": 2020}'.", metavar="JSON"),
    ] = None,
    wait: _Wait = 0,
    as_json: Json = False,
) -> None:
    """Delete documents; their text, words and vectors are erased from the index's files."""
    for word in overrides or ():
        if "=" not in word:
            how = shlex.join(["llmbench", "index", "delete", pipeline, "--source", word])
            raise LlmbenchError(f"{word!r} is not an override (key=value). To delete documents by source: {how}")
    if not sources and where is None:
        raise LlmbenchError("Nothing to delete. Name documents with --source SOURCE or --where JSON.")
    from llmbench.cli import index_care

    index_care.delete(_load(pipeline, overrides), sources or [], where, wait, as_json=as_json)


def use(
    pipeline: Pipeline,
    generation: Annotated[int, typer.Argument(metavar="N", help="The generation to switch to.", show_default=False)],
    overrides: Overrides = None,
    wait: _Wait = 0,
    as_json: Json = False,
) -> None:
    """Switch searches to another generation of an index, such as one built with --rebuild --stay."""
    from llmbench.cli import index_care

    index_care.use(_load(pipeline, overrides), generation, wait, as_json=as_json)


def prune(pipeline: Pipeline, overrides: Overrides = None, wait: _Wait = 0, as_json: Json = False) -> None:
    """Remove every generation of an index except the active one."""
    from llmbench.cli import index_care

    index_care.prune(_load(pipeline, overrides), wait, as_json=as_json)


def report(
    pipeline: Pipeline,
    overrides: Overrides = None,
    fail_under: Annotated[
        float | None,
        typer.Option(
            "--fail-under",
            min=0,
            max=100,
            metavar="PERCENT",
            help="Exit with 1 when less than PERCENT of the text or of the files was embedded.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Report how much of the documents is embedded, unknown to the embedder, duplicated, or changed since the last build.

    Changes nothing; to bring the index up to date first, run `llmbench index build`.

    Exit code 0: done; 1: a share below --fail-under; 2: an error.
    """
    from llmbench.cli import index_care

    index_care.report(_load(pipeline, overrides), fail_under, as_json=as_json)


def list_indexes(as_json: Json = False) -> None:
    """List the indexes of this workspace, with pipeline, contents, size, age and state."""
    from llmbench.cli import index_list

    index_list.show(as_json=as_json)


def _load(pipeline: str, overrides: Sequence[str] | None) -> RagRecipe:
    from llmbench import recipe
    from llmbench.recipe import RagRecipe

    return recipe.load(pipeline, RagRecipe, overrides or [])
