"""Flags of `llmbench index` that are commands now. For one release each still works, and says which command it has become.

This module goes in the release after, with tests/cli/test_index_flags.py.
"""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field

from llmbench.errors import LlmbenchError
from llmbench.shown import printable

__all__ = ["translated"]

_COMMANDS = {
    "--verify": "verify",
    "--repair": "repair",
    "--compact": "compact",
    "--delete": "delete",
    "--delete-where": "delete",
    "--use": "use",
    "--prune": "prune",
    "--report": "report",
}
_COMPANIONS = {"--absent": "verify", "--fail-under": "report"}
"""Options that went with one of them, and are options of its command."""
_RENAMED = {"--delete": "--source", "--delete-where": "--where"}
_VALUED = {"--absent", "--delete", "--delete-where", "--engine", "--fail-under", "--use", "--wait"}
_TAKEN: dict[str, set[str]] = {"--engine": set(), "--wait": {"repair", "compact", "delete", "use", "prune"}}
"""Options that went with every flag, and the commands that take them; with the other flags they did nothing."""


@dataclass
class _Words:
    """A command line of before, taken apart."""

    flags: list[str] = field(default_factory=list)
    options: list[list[str]] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    generation: list[str] = field(default_factory=list)


def translated(args: list[str]) -> list[str]:
    """What `llmbench index` was given, with the command that it means in front.

    Raises:
        LlmbenchError: it asks for two things at once.
    """
    words = _apart(args)
    commands = list(dict.fromkeys(_COMMANDS[flag] for flag in words.flags))
    names = [one[0] for one in words.options]
    pipeline = words.rest[:1] or ["PIPELINE"]
    if not commands:
        for name in names:
            if name in _COMPANIONS:
                line = shlex.join(["llmbench", "index", _COMPANIONS[name], *pipeline])
                raise LlmbenchError(f"{name} is now an option of another command. Run: {line} {name} ...")
        return ["build", *args]
    building = [["build", *pipeline, "--rebuild"]] if "--rebuild" in names else []
    if len(commands) > 1 or building:
        steps = [*building, *([command, *pipeline] for command in commands)]
        told = " && ".join(shlex.join(["llmbench", "index", *step]) for step in steps)
        raise LlmbenchError(f"{words.flags[0]} cannot be combined with another action. Run one after the other: {told}")
    command = commands[0]
    options = [word for one in words.options if command in _TAKEN.get(one[0], {command}) for word in one]
    behind = [*words.rest[:1], *words.generation, *words.rest[1:]]
    dashed = any(one.startswith("-") for one in behind)
    now = [command, *options, "--", *behind] if dashed else [command, *behind, *options]
    line = shlex.join(["llmbench", "index", *now])
    print(printable(f"{words.flags[0]} will be removed in the next release. Use: {line}"), file=sys.stderr)
    return now


def _apart(args: list[str]) -> _Words:
    found, left = _Words(), list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            found.rest += left
            break
        if not word.startswith("-") or word == "-":
            found.rest.append(word)
            continue
        name, equals, value = word.partition("=")
        if name in _VALUED and not equals and left:
            equals, value = "=", left.pop(0)
        given = [value] if equals else []
        if name in _COMMANDS:
            found.flags.append(name)
        if name == "--use":
            found.generation = given
        elif name not in _COMMANDS or name in _RENAMED:
            found.options.append([_RENAMED.get(name, name), *given])
    return found
