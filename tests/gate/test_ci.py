"""The jobs in docs/ci: their steps are plain commands, which run here, on the bundled model and handbook."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.compare.conftest import GRID

ROOT = Path(__file__).parents[2]
CI = ROOT / "docs" / "ci"


def steps(name: str) -> list[str]:
    """The commands of a job, without those that install llmbench."""
    document = yaml.safe_load((CI / f"{name}.yml").read_text(encoding="utf-8"))
    if name == "gitlab":
        return [one for one in document["gate"]["script"] if not one.startswith("pip ")]
    return [one["run"] for one in document["jobs"]["gate"]["steps"] if "run" in one and not one["run"].startswith("pip ")]


def shell(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a step as a CI system does: in a shell that stops at the first error, with `llmbench` on the path."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "llmbench").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m llmbench "$@"\n', encoding="utf-8")
    (programs / "llmbench").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", command],
        cwd=folder, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True, timeout=580, check=False,
    )  # fmt: skip


def port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def test_both_jobs_run_the_same_commands() -> None:
    github, gitlab = ([line for step in steps(name) for line in step.splitlines()] for name in ("github", "gitlab"))
    assert [line for line in github if "gh api" not in line and "gate.md ||" not in line] == gitlab
    assert yaml.safe_load((CI / "gitlab.yml").read_text(encoding="utf-8"))["gate"]["allow_failure"] == {"exit_codes": 3}


@pytest.mark.parametrize("name", ["github", "gitlab"])
def test_the_gate_s_step_leaves_its_files(name: str, tmp_path: Path, server: Any) -> None:
    gate = next(one for one in steps(name) if one.startswith("llmbench gate"))
    number = server.base_url.split(":")[2].split("/")[0]
    done = shell(f"{gate} questions.limit=20", tmp_path, PORT=number)
    assert done.returncode == 3, done.stderr  # no answer of this server is right: they are alike, and too few
    assert (tmp_path / "gate.md").read_text(encoding="utf-8").startswith("<!-- llmbench:gate:gate -->\n")
    assert ET.parse(tmp_path / "gate.xml").getroot().get("failures") == "1"
    assert (tmp_path / "outputs" / "comparisons" / "gate" / "preregistration.json").exists()
    assert {variant["id"] for variant in GRID} >= set(server.handler.asked) == {"base", "base-rag"}


def test_a_comment_is_written_once_and_then_edited(tmp_path: Path) -> None:
    comment = next(one for one in steps("github") if "gh api" in one)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "gh").write_text('#!/bin/sh\necho "$@" >> calls\ncase "$*" in *--jq*) cat ids;; esac\n', encoding="utf-8")
    (programs / "gh").chmod(0o755)
    where = {"COMMENTS": "repos/o/r/issues", "NUMBER": "7"}
    assert shell(comment, tmp_path, **where).returncode == 0 and not (tmp_path / "calls").exists(), "nothing to say"
    (tmp_path / "gate.md").write_text("<!-- llmbench:gate:gate -->\n", encoding="utf-8")
    (tmp_path / "ids").write_text("", encoding="utf-8")
    assert shell(comment, tmp_path, **where).returncode == 0
    (tmp_path / "ids").write_text("41\n42\n", encoding="utf-8")
    assert shell(comment, tmp_path, **where).returncode == 0
    calls = (tmp_path / "calls").read_text(encoding="utf-8").splitlines()
    assert calls[1] == "api repos/o/r/issues/7/comments -F body=@gate.md"
    assert calls[3] == "api --method PATCH repos/o/r/issues/comments/41 -F body=@gate.md"


@pytest.mark.slow
def test_the_job_runs_whole_on_the_bundled_model_and_handbook(tmp_path: Path) -> None:
    """With real vLLM; its process is ended by the shell that began it."""
    for name in ("recipes", "rag"):
        (tmp_path / name).symlink_to(ROOT / name)
    commands = "\n".join(one for one in steps("github") if "gh api" not in one)
    whole = (
        f"trap 'kill %1; wait %1' EXIT\n{commands.replace('--markdown', 'questions.limit=40 --json --markdown')} > found.json"
    )
    done = shell(whole, tmp_path, PORT=port())
    assert done.returncode == 0, f"{done.stdout[-2000:]}{done.stderr[-2000:]}{(tmp_path / 'serve.log').read_text()[-2000:]}"
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert (found["outcome"], found["candidate"], found["baseline"]) == ("shown", "base-rag", "base")
    assert found["metrics"][0]["low"] > -0.02 and found["metrics"][0]["candidate"] > 0.3
    assert "✅" in (tmp_path / "gate.md").read_text(encoding="utf-8")
    assert "prompt_tokens" in (tmp_path / "outputs" / "comparisons" / "gate" / "answers.jsonl").read_text(encoding="utf-8")
