"""What a hosting platform and a contributor's tools read: pre-commit, CI, issue forms, the citation, the security policy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_pre_commit_runs_the_checks_of_make_check_with_the_projects_own_tools() -> None:
    repos = read(".pre-commit-config.yaml")["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    hooks = [hook["entry"].replace(" --force-exclude", "") for hook in repos[0]["hooks"]]
    made = re.search(r"^check:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert made is not None
    checks = re.findall(r"@\$\(BIN\)/((?:ruff|mypy)[^&\n]*?)(?: &.*)?$", made.group(1), re.MULTILINE)
    assert hooks == [f".venv/bin/{check.removesuffix(' .').replace(' --check', '')}" for check in checks]


def test_ci_runs_make_test_and_may_only_read() -> None:
    workflow = read(".github/workflows/ci.yml")
    steps = workflow["jobs"]["test"]["steps"]
    assert [step["run"] for step in steps if "run" in step and "if" not in step] == ["make test"]
    assert workflow["permissions"] == {"contents": "read"}
    assert {"push", "pull_request"} == set(workflow[True])  # YAML 1.1 takes `on` for true


def test_all_tests_run_each_night_and_before_a_release() -> None:
    workflow = read(".github/workflows/nightly.yml")
    steps = workflow["jobs"]["test-all"]["steps"]
    assert [step["run"] for step in steps if "run" in step and "if" not in step] == ["make test-all"]
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow[True]["schedule"] and workflow[True]["push"] == {"tags": ["v*"]}


@pytest.mark.parametrize("workflow", ["ci", "nightly"])
def test_ci_uses_the_oldest_python_that_is_supported(workflow: str) -> None:
    [job] = read(f".github/workflows/{workflow}.yml")["jobs"].values()
    steps = job["steps"]
    versions = [step["with"]["python-version"] for step in steps if "setup-python" in step.get("uses", "")]
    assert PROJECT["requires-python"] == f">={versions[0]}"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.stem)
def test_an_issue_form_asks_for_the_output_of_doctor(form: Path) -> None:
    body = yaml.safe_load(form.read_text(encoding="utf-8"))["body"]
    fields = {field["id"]: field for field in body if field["type"] != "markdown"}
    assert fields["doctor"]["attributes"]["label"] == "llmbench doctor --json"
    assert any(field.get("validations", {}).get("required") for field in fields.values())


def test_there_are_forms_for_bugs_and_ideas_and_a_bug_needs_doctor() -> None:
    assert [form.stem for form in FORMS] == ["bug", "idea"]
    doctor = next(field for field in read(".github/ISSUE_TEMPLATE/bug.yml")["body"] if field.get("id") == "doctor")
    assert doctor["validations"]["required"]


def test_the_citation_is_of_this_version_under_its_licence() -> None:
    citation = read("CITATION.cff")
    wanted = {"title": PROJECT["name"], "version": PROJECT["version"], "license": PROJECT["license"]}
    assert {key: citation[key] for key in wanted} == wanted
    assert citation["abstract"] == PROJECT["description"]


@pytest.mark.parametrize("name", ["SECURITY.md", "CONTRIBUTING.md", "README.md", "docs/api.md", "docs/cli.md"])
def test_links_to_files_lead_somewhere(name: str) -> None:
    page = ROOT / name
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if ":" not in link and not (page.parent / link).exists()] == []
