"""docs/cli.md: the command line as the program has it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperArgument, TyperGroup

from llmbench.cli import reference
from llmbench.cli.main import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def sections() -> dict[str, str]:
    """`llmbench runs rm` -> what the page says of it."""
    parts = PAGE.read_text(encoding="utf-8").replace("\n### ", "\n## ").split("\n## ")[1:]
    return {part.partition("\n")[0].strip("`"): part for part in parts}


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference.page(), "docs/cli.md is out of date. Write it again with: make docs"


def test_every_verb_has_a_section_with_its_arguments_options_and_example() -> None:
    found = sections()
    missing: list[str] = []

    def look(group: TyperGroup, above: str) -> None:
        for name, verb in group.commands.items():
            path = f"{above} {name}"
            if isinstance(verb, TyperGroup):
                look(verb, path)
                if not verb.invoke_without_command:
                    continue
            words = [one.metavar if isinstance(one, TyperArgument) else one.opts[0] for one in verb.params]
            missing.extend(f"{path} {word}" for word in [*words, verb.epilog] if str(word) not in found.get(path, ""))

    root = typer.main.get_command(cli)
    assert isinstance(root, TyperGroup)
    look(root, "llmbench")
    assert missing == []


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("llmbench train", "$ llmbench train [OPTIONS] {RECIPE} [KEY=VALUE]..."),
        ("llmbench check", "[default: 3; 0<=x<=1000]"),
        ("llmbench index build", "* `--engine <local|ray>`: ray: read and embed on the machines of a Ray cluster"),
        ("llmbench index delete", "* `--source SOURCE`: Delete documents by source; * and ? stand for any characters"),
        ("llmbench index", "* `compact`: Rewrite an index without deleted data."),
        ("llmbench runs", "* `stop`: Stop a run that is training: it saves a checkpoint"),
    ],
)
def test_a_line_says_what_to_give_the_default_and_the_limits(section: str, line: str) -> None:
    assert line in sections()[section]


def test_the_program_writes_the_page_to_a_file_or_prints_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", str(tmp_path / "cli.md")])
    reference.main()
    monkeypatch.setattr(sys, "argv", ["reference"])
    reference.main()
    assert (tmp_path / "cli.md").read_text(encoding="utf-8") == capsys.readouterr().out == reference.page()


def test_two_files_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["reference", "a.md", "b.md"])
    with pytest.raises(SystemExit) as ended:
        reference.main()
    assert ended.value.code == 2
    assert "Name one file" in capsys.readouterr().err
