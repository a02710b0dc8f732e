"""The command line as a user meets it: help, version, completion, errors, exit codes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
import typer

from llmbench.cli.main import cli

pytestmark = pytest.mark.usefixtures("kept_embedder")

PROGRAM = [sys.executable, "-m", "llmbench"]


def llmbench(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in a folder of its own."""
    env = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", **environment}
    return subprocess.run([*PROGRAM, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False)


def commands() -> list[str]:
    group = typer.main.get_command(cli)
    assert isinstance(group, typer.core.TyperGroup)
    return sorted(group.commands)


def test_every_verb_of_the_guide_is_there() -> None:
    wanted = {"train", "runs", "index", "search", "ask", "serve", "chat", "compare", "app", "demo", "new", "doctor"}
    assert wanted - set(commands()) == set()


def test_the_help_lists_verbs_beside_those_they_work_with() -> None:
    group = typer.main.get_command(cli)
    assert isinstance(group, typer.core.TyperGroup)
    names = group.list_commands(typer.Context(group))
    assert names[0] == "train" and sorted(names) == commands()
    for pair in (("train", "runs"), ("index", "search"), ("compare", "comparisons")):
        assert names.index(pair[1]) == names.index(pair[0]) + 1


@pytest.mark.parametrize("verb", commands())
def test_the_help_of_every_verb_has_an_example(verb: str, tmp_path: Path) -> None:
    done = llmbench(verb, "--help", folder=tmp_path)
    assert done.returncode == 0
    text = re.sub(r"[\s│]+", " ", done.stdout)
    assert re.search(rf"Examples?:.*llmbench {verb}", text), "no example"


def test_without_a_verb_the_help_is_shown(tmp_path: Path) -> None:
    done = llmbench(folder=tmp_path)
    assert "llmbench demo" in done.stdout + done.stderr
    assert all(verb in done.stdout + done.stderr for verb in commands())


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    from importlib.metadata import version

    assert llmbench("--version", folder=tmp_path).stdout == f"llmbench {version('llmbench')}\n"


def test_an_unknown_verb_is_an_error_that_names_the_near_one(tmp_path: Path) -> None:
    done = llmbench("trian", folder=tmp_path)
    assert done.returncode == 2
    assert "trian" in done.stderr and "train" in done.stderr


def test_an_error_of_the_user_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = llmbench("new", "sft-loora", folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["train", "index"])
def test_a_name_that_a_terminal_would_obey_or_that_is_no_text_is_shown_as_it_is_written(tmp_path: Path, verb: str) -> None:
    done = llmbench(verb, "red\x1b[31m\udcff.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and r"red\x1b[31m\udcff.yaml" in done.stderr


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = llmbench("--debug", "new", "sft-loora", folder=tmp_path)
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_a_reader_that_goes_away_gets_no_traceback(tmp_path: Path) -> None:
    for words in (["new"], ["runs", "--json"]):  # printed by rich, and plainly
        with subprocess.Popen([*PROGRAM, *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stderr is not None
            child.stdout.close()
            assert child.stderr.read() == b""
            assert child.wait() == 0


def test_ctrl_c_ends_with_a_word_and_130(tmp_path: Path) -> None:
    code = (
        "import signal, os\n"
        "from llmbench.cli import main\n"
        "@main.cli.command()\n"
        "def wait() -> None:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "import sys; sys.argv = ['llmbench', 'wait']; main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Stopped.\n")


def test_ctrl_c_while_embedding_ends_it_and_leaves_whole_documents(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"{i} " + "word " * 150}) + "\n" for i in range(4000)))
    (tmp_path / "many.yaml").write_text("name: many\ndocuments: [{path: rows.jsonl, columns: {}}]\n")
    command = [*PROGRAM, "index", "many.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        written = Path(os.environ["LLMBENCH_HOME"]) / "indexes" / "many" / "1" / "index.sqlite"
        while child.poll() is None and not (written.exists() and _documents(written)):
            time.sleep(0.1)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "", "Stopped.\n")
    assert 0 < _documents(written) < 4000
    done = llmbench("index", "verify", "many.yaml", folder=tmp_path)
    assert "No problems found." in done.stdout


def _documents(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(database)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM documents").fetchone()[0])
        except sqlite3.OperationalError:  # its tables are being made
            return 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("llmbench tra", "train"),
        ("llmbench doc", "doctor"),
        ("llmbench doctor --j", "--json"),
        ("llmbench new hand", "handbook"),
        ("llmbench index ver", "verify"),
        ("llmbench index my", "my.yaml"),
        ("llmbench index --reb", "--rebuild"),
        ("llmbench index my.yaml --reb", "--rebuild"),
        ("llmbench index verify my", "my.yaml"),
        ("llmbench index delete my.yaml --so", "--source"),
    ],
)
def test_bash_completes_verbs_options_and_recipe_names(words: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("")
    script = (
        'eval "$(_LLMBENCH_COMPLETE=source_bash llmbench)"\n'
        f"COMP_WORDS=({words}) COMP_CWORD={len(words.split()) - 1}\n"
        '_llmbench_completion llmbench; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert expected in done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_installed_for_each_shell(shell: str, tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = llmbench("--install-completion", shell, folder=tmp_path, **home)
    assert done.returncode == 0, done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "_LLMBENCH_COMPLETE" in path.read_text()]
    assert len(written) == 1


def verbs() -> list[typer.core.TyperCommand]:
    group = typer.main.get_command(cli)
    assert isinstance(group, typer.core.TyperGroup)
    groups = [one for one in group.commands.values() if isinstance(one, typer.core.TyperGroup)]
    every = [*group.commands.values(), *(verb for one in groups for verb in one.commands.values())]
    return [one for one in every if isinstance(one, typer.core.TyperCommand)]


def test_helps_begin_with_a_verb_in_the_imperative_and_end_with_the_example() -> None:
    for verb in verbs():
        first = (verb.help or "").split()[0]
        assert first[0].isupper() and not re.search(r"(?<!s)s$", first), f"{verb.name}: {first}"
        assert verb.epilog and re.match(r"Examples?: `", verb.epilog) and "Example" not in (verb.help or ""), verb.name


def test_arguments_are_named_alike() -> None:
    for verb in verbs():
        for parameter in verb.params:
            if isinstance(parameter, typer.core.TyperArgument):
                metavar = (parameter.metavar or "").upper()
                several = ("[KEY=VALUE]...", "RUN...", "[TAG]...", "[TEXT]...", "[TAG...]")
                assert parameter.metavar == metavar != "", f"{verb.name} {parameter.name}"
                assert parameter.nargs == 1 or metavar in several, f"{verb.name} {parameter.name}: {metavar}"


def test_json_and_overwrite_are_explained_alike() -> None:
    named = [(verb.name, one) for verb in verbs() for one in verb.params if isinstance(one, typer.core.TyperOption)]
    assert {one.help for _, one in named if "--json" in one.opts} == {"Print one JSON document instead of text."}
    assert {one.name for _, one in named} & {"force", "out"} == set()
    assert {name for name, one in named if "--overwrite" in one.opts} == {
        *("train", "merge", "new", "raft", "export", "import", "replay"),
    }


def test_earlier_spellings_still_work(tmp_path: Path) -> None:
    (tmp_path / "handbook.yaml").write_text("mine")
    assert llmbench("new", "handbook", "--force", folder=tmp_path).returncode == 0
    asked = ["raft", "rag/handbook.yaml", "none.jsonl", "--out", "rows.jsonl"]
    assert "none.jsonl: no such file" in llmbench(*asked, folder=tmp_path).stderr


def test_completion_says_how_to_install_it(tmp_path: Path) -> None:
    done = llmbench("completion", folder=tmp_path)
    assert done.returncode == 0 and "llmbench --install-completion" in done.stdout


def test_every_option_of_every_verb_is_explained() -> None:
    group = typer.main.get_command(cli)
    assert isinstance(group, typer.core.TyperGroup)
    silent = [
        f"{verb.name} {parameter.name}"
        for verb in (*group.commands.values(), *verbs())
        for parameter in verb.params
        if isinstance(parameter, click.Option | typer.core.TyperOption | typer.core.TyperArgument)
        if not getattr(parameter, "help", None) and parameter.name != "help"
    ]
    assert silent == []


ROOT = Path(__file__).parents[2]
WRITTEN = [
    ROOT / "README.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "recipes").glob("*.yaml"),
    *(ROOT / "rag").glob("*.yaml"),
]
"""What shows commands. CHANGELOG, which tells of options as they were then, is not among them."""


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_that_are_shown_have_options_that_are_there(path: Path) -> None:
    group = typer.main.get_command(cli)
    assert isinstance(group, typer.core.TyperGroup)
    every = dict(group.commands) | {
        f"{name} {verb.name}": verb
        for name, inner in group.commands.items()
        for verb in getattr(inner, "commands", {}).values()
    }
    known = {path: {name for one in verb.params for name in (*one.opts, *one.secondary_opts)} for path, verb in every.items()}
    known["index"] |= known["index build"]  # what it is short for
    known["votes"] |= known["votes show"]  # likewise
    wrong = []
    for line in path.read_text(encoding="utf-8").splitlines():
        for shown in re.findall(r"(?:^[\s#$]*|[`;&(]\s*)llmbench ([a-z]+[^`]*)", line):
            words = re.split(r"\s(?:#|&&|\||>)\s|\s{2,}", shown)[0].split()
            name = next((path for path in (" ".join(words[:2]), words[0]) if path in known), words[0])
            options = {word.split("=")[0].rstrip(".,;:)") for word in words if word.startswith("--")}
            wrong += [f"{name} {option}" for option in options - known.get(name, {*()}) - {"--help"}]
    assert wrong == []
