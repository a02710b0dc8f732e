"""The command line. Each verb is a short function in a module of its own; this one joins them and makes one line of an error.

Nothing heavy is imported here or at the top of a verb's module: `llmbench --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from llmbench.cli import (
    ablate,
    advise,
    capture,
    certify,
    chat,
    check,
    compare,
    completion,
    demo,
    diagnose,
    doctor,
    evaluate,
    export,
    gate,
    importing,
    index,
    judge,
    keys,
    merge,
    new,
    push,
    raft,
    rag,
    replay,
    rollout,
    runs,
    schema,
    selftest,
    serve,
    show,
    sweep,
    train,
    variants,
    vote,
)
from llmbench.cli import app as app_verb
from llmbench.cli.arguments import EARLIER
from llmbench.errors import LlmbenchError
from llmbench.shown import printable

__all__ = ["cli", "main"]


_ORDER: list[str] = []
"""The verbs as they are registered: in the order of the work. Typer lists those that have verbs of their own last."""


class _Verbs(TyperGroup):
    """All verbs. What ends one that is no error is seen to here, before typer makes exits of its own of it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names, as the help shows them."""
        return sorted(super().list_commands(ctx), key=lambda name: _ORDER.index(name) if name in _ORDER else len(_ORDER))

    def invoke(self, ctx: Any) -> Any:
        """Runs a verb: 130 and a word when it was stopped; nothing is wrong when the reader of its output goes away."""
        try:
            done = super().invoke(ctx)
            if sys.stdout is not None:
                sys.stdout.flush()
            return done
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            raise typer.Exit(130) from None
        except (BrokenPipeError, SystemExit) as end:  # rich makes an exit of the first
            if not isinstance(end, BrokenPipeError) and not isinstance(end.__context__, BrokenPipeError):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


cli = typer.Typer(
    name="llmbench",
    cls=_Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda name: EARLIER.get(name, name),
    },
    help="Fine-tune open language models, serve them, ground them in documents, and measure whether it helped.",
    epilog="Start here: `llmbench demo` runs the whole workbench on a bundled model, `llmbench doctor` checks the machine.\n\n"
    "Exit codes: 0 done; 1 a check failed; 2 an error, printed on one line; 3 an export is not what was trained, or a gate "
    "is undecided; 130 stopped with Ctrl-C.",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"llmbench {version('llmbench')}")
        raise typer.Exit


@cli.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of every verb go before it: `llmbench --debug train ...`."""
    if debug:
        os.environ["LLMBENCH_DEBUG"] = "1"


for verbs in (
    train,
    runs,
    diagnose,
    replay,
    ablate,
    sweep,
    check,
    show,
    merge,
    export,
    push,
    certify,
    selftest,
    index,
    rag,
    raft,
    evaluate,
    serve,
    keys,
    variants,
    rollout,
    capture,
    chat,
    compare,
    gate,
    judge,
    vote,
    app_verb,
    demo,
    new,
    importing,
    schema,
    advise,
    doctor,
    completion,
):
    verbs.register(cli)
    infos: list[Any] = [*cli.registered_commands, *cli.registered_groups]
    names = (info.name or info.callback.__name__ for info in infos)
    _ORDER += [name for name in names if name not in _ORDER]


def main() -> None:
    """Runs the command line: 0 done, 2 an error the user can fix (one line on stderr), 130 stopped with Ctrl-C."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    try:
        cli(prog_name="llmbench")  # also under `python -m llmbench`, where completion would take another name
    except LlmbenchError as error:
        if os.environ.get("LLMBENCH_DEBUG"):
            raise
        print("\n".join(map(printable, str(error).split("\n"))), file=sys.stderr)  # it may name a file or quote a text
        sys.exit(2)
