"""The training command of a shell script or a text: its options as settings. No shell runs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing import foreign
from llmbench.importing.foreign import Foreign, number, text_of

__all__ = ["read"]

_ASSIGNED = re.compile(r"^\s*(?:export\s+)?([A-Za-z_]\w*)=(\"[^\"$`]*\"|'[^']*'|[^\s\"'$`;&|()]*)\s*$")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
_SCRIPT = re.compile(r"(?:.*/)?(sft|dpo|orpo|kto|reward|reward_modeling|grpo|gkd)(?:\.py)?")
_LAUNCHERS = {"accelerate", "torchrun", "python", "python3", "uv", "deepspeed", "nohup", "time", "poetry", "pipx"}
_REFER = "names its own configuration: import that file instead"


def read(path: Path) -> Foreign:
    """The one training command of a file.

    Raises:
        RecipeError: there is none, there are several, or it names a configuration of its own that is missing.
    """
    text = text_of(path)
    if re.match(r"\s*[\w-]+:(\s|$)", text) and path.suffix.lower() == ".txt":
        return foreign.mapping(path, text)
    variables: dict[str, str] = {}
    commands: list[tuple[int, str, list[str]]] = []
    for line, command in _joined(text):
        if assigned := _ASSIGNED.match(command):
            variables[assigned[1]] = assigned[2].strip("\"'")
            continue
        try:
            words = shlex.split(command, comments=True)
        except ValueError as error:
            if re.search(r"\b(trl|unsloth|llamafactory-cli|sft\.py|dpo\.py)\b", command):
                raise RecipeError(f"{path}:{line}: not a complete command ({error})") from error
            continue
        words = [_filled(word, variables, path, line) if "$" in word and "'" not in command else word for word in words]
        if (start := _program(words)) is not None:
            commands.append((line, start[0], start[1]))
    if not commands:
        raise RecipeError(
            f"{path}: has no training command that llmbench knows "
            "(trl sft ..., python unsloth-cli.py ..., llamafactory-cli train ...)"
        )
    if len(commands) > 1:
        lines = ", ".join(str(line) for line, *_ in commands)
        raise RecipeError(f"{path}: has {len(commands)} training commands (lines {lines}). Import a file with one of them")
    line, program, rest = commands[0]
    return _settings(path, text, line, program, rest)


def _joined(text: str) -> list[tuple[int, str]]:
    """Lines of the shell, those that end with a backslash joined, with the number of the first."""
    found: list[tuple[int, str]] = []
    open_line, part = 0, ""
    for i, line in enumerate(text.splitlines(), 1):
        bare = line.strip().removeprefix("$ ")
        open_line = open_line or i
        if bare.endswith("\\"):
            part += bare[:-1] + " "
            continue
        if part + bare and not (part + bare).startswith("#"):
            found.append((open_line, part + bare))
        open_line, part = 0, ""
    return [*found, (open_line, part)] if part else found


def _filled(word: str, variables: dict[str, str], path: Path, line: int) -> str:
    """A word with the variables that the file itself sets."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in variables:
            raise RecipeError(f"{path}:{line}: {match[0]} is not set in this file. Write its value in its place")
        return variables[match[1]]

    return _VARIABLE.sub(value, word)


def _program(words: list[str]) -> tuple[str, list[str]] | None:
    """The trainer that a command starts, as `trl sft`, and its arguments; None of another command."""
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        words = words[1:]
    launched = bool(words) and Path(words[0]).name in _LAUNCHERS
    for i, word in enumerate(words[:40]):
        name, after = Path(word).name, words[i + 1 :]
        if not launched and i:
            return None
        if name == "trl" and after and (match := _SCRIPT.fullmatch(after[0])):
            return f"trl {match[1]}", after[1:]
        if launched and word.endswith(".py") and (match := _SCRIPT.fullmatch(word)):
            return f"trl {match[1]}", _launched(words[:i]) + after
        if name == "unsloth-cli.py":
            return "unsloth cli", after
        if name == "unsloth" and after and after[0] == "train":
            return "unsloth train", after[1:]
        if name == "llamafactory-cli" and after and after[0] == "train":
            return "llamafactory-cli train", after[1:]
        if name in ("axolotl", "tune") and after and after[0] in ("train", "run"):
            return f"{name} {after[0]}", after[1:]
    return None


def _launched(words: list[str]) -> list[str]:
    """The number of processes, from the launcher's own options."""
    for i, word in enumerate(words):
        key, _, value = word.partition("=")
        if key in ("--num_processes", "--nproc_per_node", "--nproc-per-node"):
            return ["--num_processes", value or words[i + 1]]
    return []


def _settings(path: Path, text: str, line: int, program: str, rest: list[str]) -> Foreign:
    """The options as settings, over those of the file that `--config` names."""
    values: dict[str, Any] = {}
    if program.split()[0] in ("axolotl", "tune"):
        raise RecipeError(f"{path}:{line}: {program} {_REFER}")
    if program.startswith("llamafactory") and rest and not rest[0].startswith("-"):
        values |= _named(path, line, rest[0])
        rest = rest[1:]
    i = 0
    while i < len(rest):
        word = rest[i]
        i += 1
        if word in ("&", "&&", "|", ";", ">", "2>&1", ">>") or word.startswith(">"):
            break
        if not word.startswith("--"):
            if program.startswith("llamafactory") and "=" in word:
                key, _, value = word.partition("=")
                values[key] = _value(value)
                continue
            raise RecipeError(f"{path}:{line}: {word} is not an option, and stands alone. Write --key value")
        key, equals, value = word[2:].partition("=")
        key = key.replace("-", "_")
        given = [value] if equals else []
        while not equals and i < len(rest) and not rest[i].startswith("--") and not re.fullmatch(r"[&|;>].*", rest[i]):
            given.append(rest[i])
            i += 1
        if key == "config" and given:
            values = _named(path, line, given[0]) | values
        elif key.startswith("no_") and not given and key != "no_remove_unused_columns":
            values[key.removeprefix("no_")] = False
        else:
            values[key] = True if not given else _value(given[0]) if len(given) == 1 else [_value(one) for one in given]
    return Foreign(path, text, values, {(key,): line for key in values}, program)


def _named(path: Path, line: int, name: str) -> dict[str, Any]:
    for start in (path.absolute().parent, Path.cwd()):
        if (start / name).is_file():
            return dict(foreign.read(start / name).values)
    raise RecipeError(f"{path}:{line}: no such file {name} (looked in {path.absolute().parent} and in the working directory)")


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text.lower() in ("none", "null"):
        return None
    found = number(text)
    return text if found is None else found
