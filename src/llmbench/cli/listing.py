"""Verbs that have verbs of their own and take a name in place of one: `llmbench runs`, `comparisons` and `index`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import typer
from typer.core import TyperGroup

from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["Listing", "Reported", "Yes", "confirm", "drop", "group", "launch", "print_all", "print_one"]

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Remove without asking.")]


class Reported(Protocol):
    """A sweep or a comparison: what has a folder, a report and a verdict."""

    @property
    def name(self) -> str:
        """Of its folder."""

    @property
    def report(self) -> Path:
        """The page for people."""

    def to_json(self) -> dict[str, Any]:
        """All of it, for programs."""


R = TypeVar("R", bound=Reported)


class Listing(TyperGroup):
    """`runs` lists, `runs NAME` is short for `runs show NAME`, and `runs rm NAME` is a verb of its own."""

    default = "show"
    """The verb that a name alone is short for. It takes the name as its first argument."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A word that is no verb is a name for the default one."""
        return super().resolve_command(ctx, args if args[0] in self.commands else [self.default, *args])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """The verbs, and the names."""
        names = self.commands[self.default].params[0].shell_complete(ctx, incomplete)
        return [*super().shell_complete(ctx, incomplete), *names]


def group(lists: Callable[..., None], *, metavar: str, epilog: str) -> typer.Typer:
    """The group of such a verb; `lists` is run with no name behind it. It needs a command `show`."""
    made = typer.Typer(cls=Listing, invoke_without_command=True, epilog=epilog, subcommand_metavar=metavar)
    made.callback()(lists)
    return made


def confirm(question: str, yes: bool) -> None:
    """Asks before something is removed; ends with exit code 1 where the answer is no.

    Raises:
        LlmbenchError: nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise LlmbenchError("Nothing was removed: there is no terminal to ask on. Add --yes to remove without asking.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        print("Nothing was removed.")
        raise typer.Exit(1)


def launch(path: Path) -> None:
    """Prints a path, and opens it where a person sits at a desktop."""
    print(path)
    if sys.stdout.isatty() and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        typer.launch(str(path))


def print_all(found: Sequence[R], verdict: Callable[[R], str], as_json: bool, *, none: str) -> None:
    """Lists results with what each found; `none` says how one is made."""
    if as_json:
        print_json([one.to_json() for one in found])
        return
    if not found:
        print(none)
    for one in found:
        print(f"{one.name}: {verdict(one)}\n  {one.report}")


def print_one(one: R, show: Callable[[R], None], as_json: bool) -> None:
    """Shows one result."""
    if as_json:
        print_json(one.to_json())
    else:
        show(one)


def drop(name: str, home: Path, remove: Callable[[str], None], yes: bool, as_json: bool, *, question: str, done: str) -> None:
    """Removes a result of the folder `home`, after the question was answered, and says that it was done."""
    confirm(question, yes)
    remove(name)
    if as_json:
        print_json({"name": name, "removed": str(home / name)})
    else:
        print(done)
