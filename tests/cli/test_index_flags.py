"""Flags of `llmbench index` that are commands now: each works as before for one release, and names its command."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from llmbench.cli.index_flags import translated
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError

pytestmark = pytest.mark.usefixtures("kept_embedder")

FLAGS = [
    (["--verify"], ["verify", "PIPELINE"]),
    (["--verify", "--absent", "Jane Roe"], ["verify", "PIPELINE", "--absent", "Jane Roe"]),
    (["--verify", "--wait", "5", "--json"], ["verify", "PIPELINE", "--json"]),
    (["--repair", "--wait", "5"], ["repair", "PIPELINE", "--wait", "5"]),
    (["--compact", "--engine=local"], ["compact", "PIPELINE"]),
    (["--delete", "lamp.md", "--delete", "p*"], ["delete", "PIPELINE", "--source", "lamp.md", "--source", "p*"]),
    (["--delete-where={}", "--json"], ["delete", "PIPELINE", "--where", "{}", "--json"]),
    (["--use", "2"], ["use", "PIPELINE", "2"]),
    (["--prune"], ["prune", "PIPELINE"]),
    (["--report", "--fail-under", "95"], ["report", "PIPELINE", "--fail-under", "95"]),
]


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["index", *words])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A pipeline with two pages in two generations, of which the first is searched, and the home that holds them."""
    project = tmp_path_factory.mktemp("project")
    (project / "docs").mkdir()
    for name in ("lamp", "pump"):
        (project / "docs" / f"{name}.md").write_text(f"# {name}\n\nThe {name} is loud.\n")
    recipe = project / "kept.yaml"
    recipe.write_text("name: kept\ndocuments: [docs]\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(project / "home"))
        for words in ([], ["--rebuild", "--stay"]):
            assert run(str(recipe), *words).exit_code == 0
    return str(recipe), project / "home"


@pytest.mark.parametrize(("flags", "command"), FLAGS)
def test_a_flag_does_what_its_command_does_and_names_it(
    built: tuple[str, Path], home: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], command: list[str]
) -> None:
    pipeline, full = built
    now = [pipeline if word == "PIPELINE" else word for word in command]
    results = []
    for name, words in (("before", [pipeline, *flags]), ("now", now)):
        shutil.copytree(full, home / name)
        monkeypatch.setenv("LLMBENCH_HOME", str(home / name))
        results.append(run(*words))
    old, new = results
    told, *more = old.stderr.splitlines()
    line = shlex.join(["llmbench", "index", *now])
    assert told == f"{flags[0].partition('=')[0]} will be removed in the next release. Use: {line}"
    assert (old.exit_code, _figureless(old.stdout), more) == (new.exit_code, _figureless(new.stdout), new.stderr.splitlines())
    assert repr(old.exception) == repr(new.exception)


def _figureless(output: str) -> str:
    """Without times and sizes, which no two runs share."""
    return re.sub(r"[0-9.]+", "#", output)


@pytest.mark.parametrize(("flags", "command"), FLAGS)
def test_a_flag_may_stand_before_the_pipeline(flags: list[str], command: list[str]) -> None:
    assert translated([*flags, "PIPELINE"]) == translated(["PIPELINE", *flags]) == command


@pytest.mark.parametrize(
    ("before", "now"),
    [
        (["p.yaml", "--use", "1", "name=a", "--json"], ["use", "p.yaml", "1", "name=a", "--json"]),
        (["p.yaml", "documents=-", "--report"], ["report", "p.yaml", "documents=-"]),
        (["--verify", "--json", "--", "-p.yaml"], ["verify", "--json", "--", "-p.yaml"]),
        (["p.yaml", "--rebuild", "--stay", "--wait", "1"], ["build", "p.yaml", "--rebuild", "--stay", "--wait", "1"]),
    ],
)
def test_other_words_keep_their_places(before: list[str], now: list[str]) -> None:
    assert translated(before) == now


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--verify", "--repair"], "--verify cannot .+: llmbench index verify PIPELINE && llmbench index repair PIPELINE$"),
        (
            ["--report", "--rebuild"],
            "--report cannot .+: llmbench index build PIPELINE --rebuild && llmbench index report PIPELINE$",
        ),
        (["--absent", "x"], r"--absent is now .+\. Run: llmbench index verify PIPELINE --absent \.\.\.$"),
        (["--fail-under", "5"], r"--fail-under is now .+\. Run: llmbench index report PIPELINE --fail-under \.\.\.$"),
    ],
)
def test_what_no_command_does_alone_names_those_that_do(flags: list[str], message: str) -> None:
    with pytest.raises(LlmbenchError, match=message):
        CliRunner().invoke(cli, ["index", "PIPELINE", *flags], catch_exceptions=False)
