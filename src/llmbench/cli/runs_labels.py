"""`llmbench runs note`, `tag`, `archive` and `unarchive`: what a person says of a run."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Name, Names
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

__all__ = ["register"]


def register(group: typer.Typer) -> None:
    """Adds them to the verbs under `runs`."""
    group.command(epilog="Example: `llmbench runs note sft-lora 'learning rate too high, see sft-lora-2'`")(note)
    group.command(epilog="Example: `llmbench runs tag sft-lora baseline paper --remove draft`")(tag)
    group.command(epilog="Example: `llmbench runs archive sft-lora sft-lora-2`")(archive)
    group.command(epilog="Example: `llmbench runs unarchive sft-lora`")(unarchive)


def note(
    name: Name,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="The note.", show_default=False)] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the note.")] = False,
    as_json: Json = False,
) -> None:
    """Set the note of a run, or show it when no text is given. It stays when the run is resumed."""
    from llmbench import runs
    from llmbench.runs import labels

    run = runs.open_run(name)
    if text is not None and (clear or not text.strip()):
        raise LlmbenchError("Give a text to set the note, or --clear to remove it.")
    found = labels.read(run) if text is None and not clear else labels.note(run, text or "")
    if as_json:
        print_json({"name": name, "note": found.note})
    elif clear or not found.note:
        print(f"{name} has no note.")
    else:
        print(found.note)


def tag(
    name: Name,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="Tags to add.", show_default=False)] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="TAG", help="A tag to remove; repeatable.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Add tags to a run and remove others, or show its tags when none is given. `llmbench runs --tag TAG` lists by them."""
    from llmbench import runs
    from llmbench.runs import labels

    run = runs.open_run(name)
    found = labels.tag(run, tags or (), remove or ()) if tags or remove else labels.read(run)
    if as_json:
        print_json({"name": name, "tags": list(found.tags)})
    else:
        print(f"{name}: {', '.join(found.tags) or 'no tags'}")


def archive(
    names: Names,
    as_json: Json = False,
) -> None:
    """Take runs out of the list. All their files stay: `llmbench runs --archived` lists them, `unarchive` puts them back."""
    _archived(names, True, as_json)


def unarchive(
    names: Annotated[list[str], typer.Argument(metavar="RUN...", help="Archived runs.", autocompletion=completion.runs)],
    as_json: Json = False,
) -> None:
    """Put archived runs back into the list."""
    _archived(names, False, as_json)


def _archived(names: list[str], archived: bool, as_json: bool) -> None:
    from llmbench import runs
    from llmbench.runs import labels

    found = [runs.open_run(name) for name in dict.fromkeys(names)]  # all of them, before the first is changed
    changed: list[dict[str, Any]] = []
    for run in found:
        labels.archive(run, archived)
        changed.append({"name": run.name, "archived": archived})
        if not as_json:
            print(f"{run.name}: archived" if archived else f"{run.name}: back in the list")
    if as_json:
        print_json(changed)
