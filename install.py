"""Makes .venv and installs llmbench into it: the CUDA build where an NVIDIA GPU is, the CPU build elsewhere.

    python3 install.py            what `make demo` and `make app` need
    python3 install.py --dev      with the tools and the browser of `make test`

Needs nothing but Python's standard library. A second run finds its note (.venv/installed.json) and does nothing;
a stopped run goes on where it was. Every command's output goes to .venv/install.log.
The versions are those of the lock files, each file checked against its hash; where these do not fit, the newest that
pyproject.toml allows.
BUILD=cpu or BUILD=cuda in the environment overrides the choice of the build, VENV=FOLDER the place.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / os.environ.get("VENV", ".venv")
LOCKS = ROOT / "locks"
LOCKED_PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that the lock files are for; onnxruntime has no newer wheels
LOCKED_MACHINES = ("aarch64", "x86_64")
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
NOTE = VENV / "installed.json"
OWN = {LOG.name, NOTE.name, "installed.new", ".gitignore", "bin", "include", "lib", "lib64"}
DISK = {"cpu": 6, "cuda": 16}  # GiB that the environment takes, downloads included
SERVE = {"cpu": "serve-cpu", "cuda": "serve"}
MINUTES = {"cpu": "2 to 5", "cuda": "4 to 10"}
COMPANIONS = ("torchvision", "torchaudio", "torchcodec")


class Problem(Exception):
    """What went wrong and what to do next."""


def main() -> None:
    """Installs what is missing, or says in one line why it cannot."""
    dev = "--dev" in sys.argv[1:]
    try:
        if sys.version_info < (3, 11):
            raise Problem(
                f"Python {sys.version.split()[0]} is too old: llmbench needs 3.11 or newer. Run: make PYTHON=python3.12"
            )
        if not sys.platform.startswith("linux"):
            raise Problem(f"llmbench installs on Linux (on Windows: inside WSL 2), not on {sys.platform}.")
        install(dev)
    except Problem as problem:
        sys.exit(f"install: {problem}")
    except KeyboardInterrupt:
        sys.exit("\nStopped. The same command continues from here.")


def install(dev: bool) -> None:
    """Brings .venv to what pyproject.toml says; at once when it is there already."""
    build = choose_build()
    note: dict[str, Any] = {"key": key(), "build": build, "done": []}
    known = read_note()
    if known.get("build") not in (None, build):
        say(f"The environment was made for {known['build']}; rebuilding it for {build}.")
        shutil.rmtree(VENV)
        known = {}
    if known.get("key") == note["key"] and runs():
        note["done"] = known.get("done", [])
    wanted = ["run", "dev"] if dev else ["run"]
    if not set(wanted) <= set(note["done"]):
        start = time.monotonic()
        unlocked = why_unlocked(build)
        what = "the tools of `make test`" if "run" in note["done"] else f"llmbench with the {build.upper()} build of vLLM"
        about = "under a minute" if "run" in note["done"] else f"about {MINUTES[build]} minutes and {DISK[build]} GiB"
        say(f"Installing {what} into {VENV.name} ({about}; once only; log: {VENV.name}/install.log)")
        if "run" not in note["done"]:
            make_environment(DISK[build])
            if unlocked:
                say(f"  not from the lock file: {unlocked}. Installing the newest versions that pyproject.toml allows.")
                install_torch(build, torch_version())
                step("llmbench, TRL, vLLM, FAISS, Gradio", pip("install", "-e", f".[all,{SERVE[build]}]"))
            else:
                if build == "cpu":
                    install_torch(build, torch_version(), "--no-deps")  # not in the lock file, which says why; what it needs is
                step("TRL, vLLM, FAISS, Gradio, by their hashes", from_lock(build))
                step("llmbench", pip("install", "--no-deps", "--no-build-isolation", "-e", "."))
            drop_broken_companions()
            check_device(build)
            note["done"].append("run")
            write_note(note)
        if dev and "dev" not in note["done"]:
            step("ruff, mypy, pytest, playwright", pip("install", "-e", ".[dev]") if unlocked else from_lock("dev"))
            note["done"].append("dev")
            write_note(note)
        say(f"Installed in {time.monotonic() - start:.0f} s.")
    if dev:
        provide_browser()


def choose_build() -> str:
    """`cuda` where an NVIDIA GPU is, else `cpu`; the variable BUILD wins."""
    forced = os.environ.get("BUILD", "")
    if forced:
        if forced not in ("cpu", "cuda"):
            raise Problem(f"BUILD={forced} is not a build. Use BUILD=cpu or BUILD=cuda.")
        return forced
    if any(Path("/proc/driver/nvidia/gpus").glob("*")):
        return "cuda"
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "cpu"
    return "cuda" if listed.returncode == 0 and "GPU " in listed.stdout else "cpu"


def make_environment(gib: int) -> None:
    """An empty .venv with a current pip; one that still runs is kept."""
    free = shutil.disk_usage(ROOT).free / 2**30
    if not runs() and free < gib:
        raise Problem(f"{ROOT} has {free:.1f} GiB free and the installation takes about {gib}. Free some space.")
    if not runs():
        foreign = sorted({path.name for path in VENV.iterdir()} - OWN) if VENV.is_dir() else []
        if foreign and not (VENV / "pyvenv.cfg").exists():
            raise Problem(f"{VENV} is not a Python environment: it holds {', '.join(foreign[:3])}. Move it.")
        command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            shutil.rmtree(VENV, ignore_errors=True)
            version = "{}.{}".format(*sys.version_info)
            if "ensurepip" in made.stdout + made.stderr:
                raise Problem(f"this Python cannot make environments. Run: sudo apt-get install python{version}-venv")
            raise Problem(f"{' '.join(command)} failed: {(made.stderr or made.stdout).strip()[-500:]}")
        LOG.write_text("")
    step("pip", pip("install", "--upgrade", "pip>=25.1"))


def why_unlocked(build: str) -> str:
    """Why the lock files cannot be used here; empty if they can."""
    version, machine, (oldest, newest) = sys.version_info[:2], platform.machine(), LOCKED_PYTHONS
    if not oldest <= version <= newest or sys.implementation.name != "cpython":
        return f"it is for CPython {show(oldest)} to {show(newest)}, and this is {sys.implementation.name} {show(version)}"
    if machine not in LOCKED_MACHINES:
        return f"it is for {' and '.join(LOCKED_MACHINES)}, and this machine is {machine}"
    wanted = f"sha256:{requirements()}\n"
    for name in (build, "dev"):
        path = LOCKS / f"{name}.txt"
        try:
            with path.open(encoding="utf-8") as file:
                first = file.readline()
        except OSError:
            return f"{path.relative_to(ROOT)} is missing"
        if not first.endswith(wanted):
            return f"{path.relative_to(ROOT)} is older than the versions in pyproject.toml (`make lock` writes it again)"
    return ""


def from_lock(name: str) -> list[str]:
    """The command that installs a lock file: exactly its packages, each file by its hash."""
    return pip("install", "--no-deps", "--require-hashes", "-r", f"locks/{name}.txt")


def install_torch(build: str, version: str, *options: str) -> None:
    """PyTorch. Its CPU build is on PyTorch's own index, which uv knows by itself."""
    if build == "cuda":
        step(f"PyTorch {version} for CUDA", pip("install", *options, f"torch=={version}"))
        return
    name = f"PyTorch {version} for the CPU"
    before = LOG.stat().st_size
    try:
        step(name, pip("install", *options, f"torch=={version}+cpu"))
    except Problem:
        if "No matching distribution found for torch" not in LOG.read_text(errors="replace")[before:]:
            raise
        step("uv", pip("install", "uv"))
        uv = [str(VENV / "bin" / "uv"), "pip", "install", "--python", str(PYTHON), "--torch-backend=cpu"]
        step(f"{name}, from PyTorch's index", [*uv, *options, f"torch=={version}"])


def drop_broken_companions() -> None:
    """Removes what vLLM names but does not need and what does not load beside this torch.

    The usual wheels of torchvision and its kin are CUDA builds: beside a CPU torch their import fails, and transformers,
    which looks only whether they are installed, fails with them.
    """
    code = "import importlib.util as u, sys; u.find_spec('{0}') or sys.exit(0); import {0}"
    broken = [
        name
        for name in COMPANIONS
        if subprocess.run([str(PYTHON), "-c", code.format(name)], capture_output=True, check=False).returncode != 0
    ]
    if broken:
        step(f"removing {', '.join(broken)} (incompatible with this PyTorch)", pip("uninstall", "-y", *broken))


def check_device(build: str) -> None:
    """A CUDA build that sees no GPU would fail much later and less clearly."""
    if build == "cuda":
        code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 1)"
        if subprocess.run([str(PYTHON), "-c", code], capture_output=True, check=False).returncode != 0:
            raise Problem("PyTorch does not see the GPU: update the NVIDIA driver, or take the CPU build: make demo BUILD=cpu")


def provide_browser() -> None:
    """A Chromium for the browser tests: the system's, else apt's, else Playwright's own."""
    if any(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        os.environ["DEBIAN_FRONTEND"] = "noninteractive"
        try:
            step("package lists, for Chromium", ["apt-get", "update"])
            step("Chromium, for the browser tests", ["apt-get", "install", "-y", "--no-install-recommends", "chromium"])
            return
        except Problem as problem:
            say(f"  apt-get has no Chromium ({str(problem).splitlines()[0]}); taking Playwright's.")
    code = "from playwright.sync_api import sync_playwright as p\nwith p() as q: print(q.chromium.executable_path)"
    found = subprocess.run([str(PYTHON), "-c", code], capture_output=True, text=True, check=False)
    if found.returncode != 0 or not Path(found.stdout.strip()).exists():
        try:
            step("Chromium, for the browser tests", [str(PYTHON), "-m", "playwright", "install", "chromium"])
        except Problem as problem:
            say(f"{problem}\n  No browser: its tests will be skipped. Mend it: sudo apt-get install chromium")


def pip(*arguments: str) -> list[str]:
    """A pip command that asks nothing."""
    return [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]


def step(name: str, command: list[str]) -> None:
    """Runs one command with its output in the log, showing the seconds.

    Raises:
        Problem: it failed; the message holds the log's last telling lines.
    """
    start, live = time.monotonic(), sys.stdout.isatty()
    print(f"  {name} ...", end="", flush=True)
    with LOG.open("a") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        log.flush()
        before = log.tell()
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
        try:
            while process.poll() is None:
                try:
                    process.wait(timeout=1)
                except subprocess.TimeoutExpired:
                    if live:
                        print(f"\r  {name} ... {time.monotonic() - start:.0f} s", end="", flush=True)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    seconds = f"{time.monotonic() - start:.0f} s"
    print(f"\r  {name} ... {seconds}" if live else f" {seconds}", flush=True)
    if process.returncode != 0:
        with LOG.open(errors="replace") as log:
            log.seek(before)
            lines = [line.rstrip() for line in log if line.strip() and not re.match(r"WARNING|\s*(Location|Looking) ", line)]
        tail = "\n".join(f"    {line[:300]}" for line in lines[-8:])
        raise Problem(f"{name} failed. The last lines of {VENV.name}/install.log:\n{tail}")


def project() -> dict[str, Any]:
    """pyproject.toml."""
    import tomllib

    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def torch_version() -> str:
    """torch's version as pyproject.toml pins it."""
    extras = project()["project"]["optional-dependencies"]
    return str(next(r for r in extras["model"] if r.startswith("torch==")).partition("==")[2])


def requirements() -> str:
    """The SHA-256 of all requirements in pyproject.toml, which the first line of a lock file holds."""
    found = project()
    table = found["project"]
    wanted = [
        table["requires-python"],
        table["dependencies"],
        table["optional-dependencies"],
        found["build-system"]["requires"],
    ]
    return hashlib.sha256(json.dumps(wanted).encode()).hexdigest()


def show(version: tuple[int, int]) -> str:
    """(3, 11) -> 3.11"""
    return f"{version[0]}.{version[1]}"


def key() -> str:
    """What the installation depends on: this program, the versions, and where the folder is (scripts hold its path)."""
    files = [Path(__file__), ROOT / "pyproject.toml", *sorted(LOCKS.glob("*.txt"))]
    parts = [*(file.read_bytes() for file in files), str(ROOT).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def read_note() -> dict[str, Any]:
    """The note of the last installation, or nothing."""
    try:
        note = json.loads(NOTE.read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def write_note(note: dict[str, Any]) -> None:
    """Written last and renamed, so that a stopped installation is not taken for a whole one."""
    temporary = NOTE.with_suffix(".new")
    temporary.write_text(json.dumps(note) + "\n")
    temporary.replace(NOTE)


def runs() -> bool:
    """Whether .venv has a Python that still runs."""
    try:
        check = [str(PYTHON), "-c", "import sys, pip; sys.exit(sys.version_info < (3, 11))"]
        return subprocess.run(check, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


if __name__ == "__main__":
    main()
