"""`llmbench new`: the bundled recipes and pipelines, listed and copied out to edit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from llmbench import assets
from llmbench.errors import LlmbenchError


def register(cli: typer.Typer) -> None:
    """Adds `new`."""
    cli.command(epilog="Examples: `llmbench new` · `llmbench new sft-lora` · `llmbench new handbook my/pipeline.yaml`")(new)


def _names(incomplete: str) -> list[str]:
    """Bundled names that begin so, for the shell's completion."""
    return [name for name in map(_short, assets.documents()) if name.startswith(incomplete)]


def new(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="A bundled document, such as `sft-lora`; omit it to list them.", autocompletion=_names
        ),
    ] = None,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to write it; ./NAME.yaml by default.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Overwrite an existing file.")] = False,
) -> None:
    """List the bundled recipes and pipelines, or copy one to edit.

    Bundled files that a copy refers to, such as `rag/handbook`, are found from any folder.
    """
    if name is None:
        _list()
        return
    document = _document(name)
    target = file or Path(f"{_short(document)}.yaml")
    if target.is_dir():
        target /= f"{_short(document)}.yaml"
    if target.exists() and not overwrite:
        raise LlmbenchError(
            f"{target} already exists. Name another file, or overwrite it: llmbench new {name} {target} --overwrite"
        )
    from llmbench import workspace

    text = assets.bundled(document).read_text(encoding="utf-8")
    workspace.write_text(target, _named(text, target).replace(document, str(target)))
    command = _command(text, document)
    then = f"then run: {command.replace(document, str(target))}" if command else "then run the command in its first lines."
    print(f"{target} is a copy of {document}. Edit it, {then}")


def _document(name: str) -> str:
    """The bundled document that is meant: `sft-lora`, `sft-lora.yaml`, `recipes/sft-lora` and the whole path all name one."""
    documents = assets.documents()
    wanted = name.removesuffix(".yaml").removesuffix(".yml")
    found = [document for document in documents if wanted in (_short(document), document.removesuffix(".yaml"))]
    if len(found) == 1:
        return found[0]
    if found:
        raise LlmbenchError(f"{name} could be {' or '.join(found)}. Include the folder.")
    import difflib

    names = [*map(_short, documents), *(document.removesuffix(".yaml") for document in documents)]
    near = difflib.get_close_matches(wanted, names, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    raise LlmbenchError(f"No bundled document is named {name}. {hint}List them: llmbench new")


def _named(text: str, target: Path) -> str:
    """The copy is called by its file, so that its runs and indexes are its own: `name: sft-lora` -> `name: my`."""
    name = re.sub(r"[^a-z0-9._-]+", "-", target.stem.lower()).strip("._-")[:64]
    name = f"my-{name}" if re.search(rf"(?m)^name: {re.escape(name)}$", text) else name
    return re.sub(r"(?m)^name: .*$", f"name: {name}", text, count=1) if name else text


def _short(document: str) -> str:
    """`recipes/sft-lora.yaml` -> `sft-lora`."""
    return Path(document).stem


def _list() -> None:
    """Each bundled document with the first line of its opening comment."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for document in assets.documents():
        table.add_row(
            Text(document, "cyan", no_wrap=True), Text(_purpose(assets.bundled(document).read_text(encoding="utf-8")))
        )
    console = Console(highlight=False)
    console.print(table)
    console.print("\nCopy one to edit: llmbench new NAME [FILE]. Each also runs as it is, by the name above.")


def _purpose(text: str) -> str:
    """The first line of the opening comment."""
    first = text.splitlines()[0] if text else ""
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def _command(text: str, document: str) -> str:
    """The command that the opening comment names for this document, or nothing."""
    for line in text.splitlines():
        _, marker, command = line.partition("llmbench ")
        if line.startswith("#") and marker and document in command:
            return f"llmbench {command.strip().strip('`')}"
    return ""
