"""Writes docs/cli.md, the reference of the command line, from the help that the verbs carry.

python -m llmbench.cli.reference docs/cli.md     (or: make docs)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from llmbench import workspace
from llmbench.cli.main import cli

__all__ = ["main", "page"]

_HEAD = """# Command line

<!-- Written by `make docs` from the help texts in src/llmbench/cli. Change those, not this page. -->

{about}

{close}

`llmbench VERB --help` prints the help of a verb. `[KEY=VALUE]...` sets any field of the document that the verb reads,
as in `training.learning_rate=1e-4`; it wins over the file.
"""


def page() -> str:
    """The reference as Markdown: a table of all verbs, then a section for each with its arguments and options."""
    root = typer.main.get_command(cli)
    assert isinstance(root, TyperGroup)
    verbs = list(_verbs(root, typer.Context(root, info_name="llmbench")))
    parts = [_HEAD.format(about=root.help, close=root.epilog)]
    rows = [[f"[`{context.command_path}`]({_anchor(context)})", _first_sentence(verb)] for verb, context in verbs]
    parts.append(_table(["verb", "what it does"], rows))
    parts.append("## Options before the verb\n\n" + _options(root))
    parts += [_section(verb, context) for verb, context in verbs]
    return "\n".join(parts)


def main() -> None:
    """Writes the page to the file that is named, or prints it."""
    match sys.argv[1:]:
        case []:
            print(page(), end="")
        case [path]:
            workspace.write_text(Path(path), page())
        case _:
            print("Name one file: python -m llmbench.cli.reference docs/cli.md", file=sys.stderr)
            sys.exit(2)


def _verbs(group: TyperGroup, above: typer.Context) -> Iterator[tuple[TyperCommand | TyperGroup, typer.Context]]:
    """Each verb that has a section, and then those under it."""
    for name, verb in group.commands.items():
        assert isinstance(verb, TyperCommand | TyperGroup)
        context = typer.Context(verb, info_name=name, parent=above)
        if _has_section(verb):
            yield verb, context
        if isinstance(verb, TyperGroup):
            yield from _verbs(verb, context)


def _has_section(verb: Any) -> bool:
    """Whether a verb does something by itself, as `runs` does and `evaluate` does not."""
    return not isinstance(verb, TyperGroup) or verb.invoke_without_command


def _section(verb: TyperCommand | TyperGroup, context: typer.Context) -> str:
    level = "###" if context.parent is not None and _has_section(context.parent.command) else "##"
    arguments = [one for one in verb.params if isinstance(one, TyperArgument)]
    options = _options(verb)
    usage = [context.command_path, *["[OPTIONS]"] * bool(options), *map(_as_used, arguments)]
    if isinstance(verb, TyperGroup):
        usage.append(verb.subcommand_metavar)
    parts = [f"{level} {context.command_path}\n", f"{(verb.help or '').strip()}\n", f"    {' '.join(usage)}\n"]
    if arguments:
        parts.append(_table(["argument", "what it is"], [[f"`{one.metavar}`", _cell(one.help)] for one in arguments]))
    parts += [options, f"{verb.epilog}\n"]
    return "\n".join(part for part in parts if part)


def _as_used(argument: TyperArgument) -> str:
    """`RECIPE`; in brackets where it may be left out."""
    name = argument.metavar or str(argument.name).upper()
    return name if argument.required or name.startswith("[") else f"[{name}]"


def _options(verb: TyperCommand | TyperGroup) -> str:
    """The table of a verb's options. Those that install completion are left out: they vary with what typer finds installed."""
    options = [one for one in verb.params if isinstance(one, TyperOption) and not str(one.name).endswith("_completion")]
    rows = [[_spelled(one), _cell(_default(one)), _cell(_meaning(one))] for one in options]
    return _table(["option", "default", "what it does"], rows) if rows else ""


def _spelled(option: TyperOption) -> str:
    """`-k`, `--top-k` `INTEGER`: every spelling, and what is to be given."""
    names = ", ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names + "".join(f" / `{name}`" for name in option.secondary_opts)
    return f"{names} {_cell(_value(option))}"


def _value(option: TyperOption) -> str:
    """`FOLDER` where the option names what it takes, the words to choose from, or the type of the value."""
    if option.metavar is not None:
        return f"`{option.metavar}`"
    choices: Any = getattr(option.type, "choices", ())
    if choices:
        return " or ".join(f"`{one.value if isinstance(one, Enum) else one}`" for one in choices)
    kinds = {"int": "INTEGER", "int range": "INTEGER", "float": "NUMBER", "float range": "NUMBER", "path": "PATH"}
    return f"`{kinds.get(option.type.name, 'TEXT')}`"


def _default(option: TyperOption) -> str:
    default: Any = option.default
    if option.required:
        return "required"
    if option.is_flag:
        return f"`{option.opts[0]}`" if default else ""
    if default is None or default == ():
        return ""
    return f"`{default.value if isinstance(default, Enum) else default}`"


def _meaning(option: TyperOption) -> str:
    """The option's help, and what of its limits the help leaves out."""
    said = option.help or ""
    low, high = getattr(option.type, "min", None), getattr(option.type, "max", None)
    if low is not None:
        said += f" From {low}" + (f" to {high}." if high is not None else " on.")
    if option.multiple and "repeatable" not in said:
        said += " Repeatable."
    return said


def _first_sentence(verb: TyperCommand | TyperGroup) -> str:
    return _cell((verb.help or "").strip().split("\n\n")[0])


def _anchor(context: typer.Context) -> str:
    return "#" + context.command_path.replace(" ", "-")


def _cell(text: str | None) -> str:
    """A text as a cell of a table, where a bar would begin the next one."""
    return " ".join((text or "").split()).replace("|", r"\|")


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    main()
