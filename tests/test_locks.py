"""The lock files satisfy pyproject.toml, belong to it, and hold nothing but versions and hashes."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
ENTRY = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; (.+?))? \\$", re.MULTILINE)
BUILDS = {"cpu": "serve-cpu", "cuda": "serve"}


def installer(root: Path = ROOT) -> ModuleType:
    """install.py, which is no module of the package."""
    spec = importlib.util.spec_from_file_location("installer", root / "install.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INSTALL = installer()
PLACES = [
    {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.9",
        "platform_machine": machine,
        "sys_platform": "linux",
    }
    for minor in range(INSTALL.LOCKED_PYTHONS[0][1], INSTALL.LOCKED_PYTHONS[1][1] + 1)
    for machine in INSTALL.LOCKED_MACHINES
]


def locked(name: str, place: dict[str, str]) -> dict[str, str]:
    """Package and version of what is installed at a place."""
    text = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8")
    found = [
        (package, version) for package, version, where in ENTRY.findall(text) if not where or Marker(where).evaluate(place)
    ]
    assert len({package for package, _ in found}) == len(found), "a package stands there twice"
    return dict(found)


def wanted(extra: str) -> list[Requirement]:
    """What an extra asks for, extras within it followed."""
    found = []
    for requirement in map(Requirement, EXTRAS[extra]):
        if requirement.name == "llmbench":
            found += [one for inner in sorted(requirement.extras) for one in wanted(inner)]
        else:
            found.append(requirement)
    return found


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("place", PLACES, ids=lambda place: f"{place['python_version']}-{place['platform_machine']}")
def test_the_locked_versions_are_those_that_the_project_allows(build: str, place: dict[str, str]) -> None:
    run = locked(build, place)
    versions = run | locked("dev", place)
    if build == "cpu":
        versions["torch"] = INSTALL.torch_version()  # installed apart: see locks/lock.py
    needs = [*map(Requirement, PROJECT["project"]["dependencies"]), *wanted("all"), *wanted(BUILDS[build]), *wanted("dev")]
    needs = [one for one in needs if one.marker is None or one.marker.evaluate(place)]
    wrong = [f"{one} (locked: {versions.get(one.name.lower())})" for one in needs if not fits(one, versions)]
    assert wrong == [], "Run: make lock"
    for one in [*map(Requirement, PROJECT["project"]["dependencies"]), *wanted("all"), *wanted(BUILDS[build])]:
        assert one.name.lower() in run or one.name == "torch", f"{one.name} stands only in dev.txt"
    for one in map(Requirement, PROJECT["build-system"]["requires"]):
        assert fits(one, run), "the package is built without isolation, with what the lock file installs"


def fits(requirement: Requirement, versions: dict[str, str]) -> bool:
    version = versions.get(requirement.name.lower())
    return version is not None and requirement.specifier.contains(version, prereleases=True)


@pytest.mark.parametrize("name", [*BUILDS, "dev"])
def test_a_lock_file_is_of_these_requirements_and_holds_versions_and_hashes_only(name: str) -> None:
    first, *lines = (ROOT / "locks" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert first.endswith(f"requirements sha256:{INSTALL.requirements()}"), "pyproject.toml has changed. Run: make lock"
    line = re.compile(r"[a-z0-9][a-z0-9._-]*==\S+( ; [^/@]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [text for text in lines if not line.fullmatch(text)] == []
    entries = [at for at, text in enumerate(lines) if text[0] != " "]
    assert all(lines[at + 1].startswith("    --hash") for at in entries)


@pytest.mark.parametrize(
    ("version", "machine", "expected"),
    [
        ((3, 14), "x86_64", "it is for CPython 3.11 to 3.13, and this is cpython 3.14"),
        ((3, 12), "riscv64", "it is for aarch64 and x86_64, and this machine is riscv64"),
        ((3, 13), "aarch64", ""),
        ((3, 11), "x86_64", ""),
    ],
    ids=["newer Python", "other machine", "aarch64", "x86_64"],
)
def test_where_the_lock_does_not_fit_it_is_left_aside(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], machine: str, expected: str
) -> None:
    monkeypatch.setattr(INSTALL.sys, "version_info", (*version, 0, "final", 0))
    monkeypatch.setattr(INSTALL.platform, "machine", lambda: machine)
    assert INSTALL.why_unlocked("cpu") == expected


def test_a_lock_older_than_pyproject_or_missing_is_left_aside(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    for name in ("install.py", "pyproject.toml", "locks/cpu.txt", "locks/dev.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    code = "import install; print(install.why_unlocked('cpu'))"

    def said() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    text = (tmp_path / "pyproject.toml").read_text(encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(text.replace('"trl>=1.16,<1.17"', '"trl>=1.15,<1.17"'), encoding="utf-8")
    assert said() == "locks/cpu.txt is older than the versions in pyproject.toml (`make lock` writes it again)"
    (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
    (tmp_path / "locks" / "dev.txt").unlink()
    assert said() == "locks/dev.txt is missing"


def ran(code: str) -> Any:
    """What code prints as JSON in the folder of the programs that write the lock files and try the newest releases."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "locks", capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


LINUX = "sys_platform == 'linux'"
ARM, X86 = (f"(platform_machine == '{machine}' and {LINUX})" for machine in ("aarch64", "x86_64"))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (f"python_full_version < '3.14' and ({ARM} or {X86})", ""),
        (f"python_full_version >= '3.12' and ({ARM} or {X86})", "python_version == '3.12' or python_version == '3.13'"),
        (f"implementation_name == 'cpython' and {X86}", "platform_machine == 'x86_64'"),
        (f"python_full_version == '3.13.*' and {ARM}", "python_version == '3.13' and platform_machine == 'aarch64'"),
        (f"(python_version == '3.11' and {ARM}) or (python_version == '3.13' and {X86})", None),
    ],
    ids=["all", "newer Pythons", "a machine", "both", "not a product"],
)
def test_a_condition_says_no_more_than_python_and_machine(condition: str, expected: str | None) -> None:
    said = ran(f"import json, lock; print(json.dumps(lock.shortened({condition!r})))")
    assert said == (condition if expected is None else expected)


def test_the_newest_releases_are_sought_without_upper_bounds_and_above_the_lower_ones() -> None:
    code = (
        "import json, tomllib, newest\n"
        "project = tomllib.loads((newest.install.ROOT / 'pyproject.toml').read_text())\n"
        "found = [newest.lifted(project)['project'], newest.lifted(project, '9.8')['project']]\n"
        "print(json.dumps([newest.install.VENV.name, *found]))"
    )
    place, free, held = ran(code)
    assert place == ".venv-next"
    for extra, before in EXTRAS.items():
        for old, new in zip(map(Requirement, before), map(Requirement, free["optional-dependencies"][extra]), strict=True):
            assert (new.name, new.extras, new.marker) == (old.name, old.extras, old.marker)
            lowest = {one.version for one in old.specifier if one.operator in (">=", "==")}
            assert {(one.operator, one.version) for one in new.specifier} == {(">=", version) for version in lowest}
    assert "torch==9.8" in held["optional-dependencies"]["model"]


def test_a_failing_test_counts_for_the_package_that_it_fails_in() -> None:
    trace = "src/llmbench/training/train.py:9: in train\n.venv-next/lib/python3.11/site-packages/huggingface_hub/errors.py:4: E"
    found = ran(f"import json, newest; print(json.dumps([newest.within({trace!r}), newest.within('tests/a.py:1: E')]))")
    assert found == ["huggingface-hub", "llmbench"]


def test_the_table_says_what_broke_and_what_was_not_tried() -> None:
    code = (
        "import collections, json, newest\n"
        "ranges = {'torch': '==1.0', 'trl': '>=1,<2', 'peft': '>=1,<2', 'vllm': '==1', 'typer': '<2', 'rich': '<9'}\n"
        "locked = {'torch': '1.0', 'trl': '1.5', 'peft': '1.0', 'vllm': '1', 'typer': '1.9', 'rich': '8'}\n"
        "tried = {'torch': '1.1', 'trl': '1.5', 'peft': '1.2', 'typer': '2.1', 'rich': '8'}\n"
        "outcome = newest.Outcome(collections.Counter(peft=3))\n"
        "print(json.dumps(newest.table(ranges, [locked, tried | {'vllm': '2'}, locked, tried], outcome, tried)))"
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ran(code).splitlines()[2:]]
    assert {row[0]: row[-1] for row in rows} == {
        "torch": "nothing", "trl": "not newer", "peft": "3 below", "vllm": "not tried", "typer": "nothing",
    }  # fmt: skip
    assert ["vllm", "`==1`", "1", "2", "1", "-", "not tried"] in rows
