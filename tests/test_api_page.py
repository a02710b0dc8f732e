"""docs/api.md: its examples run, from top to bottom in an empty folder, and print what stands behind each `print`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests import warm

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
DOCUMENTS = PAGE.partition("\n## Training\n")[0]
"""The part that neither trains nor serves."""


def program(page: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE))


def promised(code: str) -> list[str]:
    """What each `print` is said to print, as a pattern; there is none without a word on it."""
    prints = [line for line in code.splitlines() if line.lstrip().startswith("print(")]
    found = [re.fullmatch(r"\s*print\(.+\)  # (.+)", line) for line in prints]
    assert prints and all(found), "a print without a comment that says what it prints"
    return [re.escape(one.group(1)).replace(re.escape("..."), ".*") for one in found if one]


def run(page: str, folder: Path) -> None:
    code = program(page)
    env = {**os.environ, "LLMBENCH_HOME": str(folder / "outputs")}
    if "training" in code:
        done = warm.run("training", code, cwd=folder, env=env, timeout=580)
    else:
        (folder / "program.py").write_text(code, encoding="utf-8")
        command = [sys.executable, "program.py"]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch("\n".join(promised(code)) + "\n", done.stdout), done.stdout


def test_the_examples_about_documents_run_and_print_what_they_say(tmp_path: Path) -> None:
    run(DOCUMENTS, tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_page_runs_as_one_program(tmp_path: Path) -> None:
    run(PAGE, tmp_path)


def test_each_of_the_ten_names_has_a_section_with_an_example_that_uses_it() -> None:
    names = re.findall(r"^\| \[`([\w.]+)`\]\(#(\w+)\)", PAGE, re.MULTILINE)
    assert len(names) == 10
    for name, anchor in names:
        section = PAGE.partition(f"\n### {name}\n")[2].partition("\n##")[0]
        assert name.replace(".", "").lower() == anchor
        used = {"Run": "runs.create", "retrieval.ask": "ask("}.get(name, name)
        assert used in program(section), name
