"""The package as others install it: from the wheel, from the sdist, editable, and bare of every extra."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from llmbench import assets

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    """`trl>=1.16,<1.17; python_version > "3"` -> trl."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found.group()).lower()


def with_dependencies(wanted: list[str]) -> set[str]:
    """Packages of this environment and whatever they need, extras left out."""
    found: set[str] = set()
    queue = list(wanted)
    while queue:
        name = name_of(queue.pop())
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # for another platform or Python
        found.add(name)
        queue += [requirement for requirement in needed if "extra ==" not in requirement]
    return found


def empty_environment(folder: Path, packages: list[str]) -> Path:
    """A new environment that sees only the named packages (links into this one) and what they need; returns its Python.

    This replaces a download: it is what `pip install` of those packages would leave.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python*")) / "site-packages"
    for package in with_dependencies(packages):
        for file in metadata.files(package) or []:
            top = Path(file.parts[0])
            origin = Path(str(metadata.distribution(package).locate_file(top)))
            if top.name not in ("..", "__pycache__") and origin.exists() and not (site / top).exists():
                (site / top).symlink_to(origin)
    return folder / "bin" / "python"


def install(python: Path, *arguments: str) -> None:
    """pip of this environment, for another."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        *arguments,
    ]
    subprocess.run(command, check=True, cwd=python.parent)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout, and the wheel that was built from that sdist."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)], check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and its plain dependencies, without any extra."""
    python = empty_environment(tmp_path_factory.mktemp("bare") / "venv", PROJECT["dependencies"])
    install(python, str(next(built.glob("*.whl"))))
    return python


@pytest.fixture(scope="module")
def editable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with this checkout installed editable."""
    python = empty_environment(tmp_path_factory.mktemp("editable") / "venv", [*PROJECT["dependencies"], "hatchling"])
    install(python, "--no-build-isolation", "--editable", str(ROOT))
    return python


def run(python: Path, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The installed `llmbench`, in a folder far from the checkout."""
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    program = str(python.parent / "llmbench")
    return subprocess.run([program, *arguments], cwd=folder, env=env, capture_output=True, text=True, check=False)


def bundle_of(python: Path, folder: Path) -> Path:
    code = "from llmbench import assets; print(assets.bundle())"
    done = subprocess.run([str(python), "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def travelling() -> set[str]:
    """What must be in every wheel, by its path in the checkout: recipes, pipelines, the two corpora, the app."""
    return {
        path.relative_to(ROOT).as_posix()
        for folder in ("recipes", "rag", "app", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not {"__pycache__", ".ruff_cache", ".mypy_cache"} & set(path.parts)
    }


def model_files() -> set[str]:
    return {path.name for path in Path(assets.model_folder(assets.TINY)).iterdir() if path.is_file()}


def test_the_wheel_holds_the_library_the_bundle_and_the_model(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    sources = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "llmbench").rglob("*.py")}
    assert sources - names == set()
    assert {f"llmbench/_bundled/{path}" for path in travelling()} - names == set()
    assert {f"llmbench/tiny/model/{name}" for name in model_files()} - names == set()
    assert "llmbench/py.typed" in names


def test_the_wheel_holds_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = wheel.namelist()
        size = sum(entry.compress_size for entry in wheel.infolist())
    assert {name.split("/")[0] for name in names} == {"llmbench", f"llmbench-{PROJECT['version']}.dist-info"}
    assert [name for name in names if re.search(r"__pycache__|\.pyc|outputs/|\.git|/tests?/", name)] == []
    assert size < 30e6


def test_the_sdist_holds_what_a_checkout_needs_to_install_and_test(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {
        "Makefile",
        "install.py",
        "locks/cpu.txt",
        "locks/lock.py",
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "tests/test_wheel.py",
        ".ci/run",
        ".github/workflows/ci.yml",
        ".pre-commit-config.yaml",
        "CITATION.cff",
        "SECURITY.md",
        "examples/train_adapter.py",
    }
    assert (wanted | travelling() | {f"src/llmbench/tiny/model/{name}" for name in model_files()}) - names == set()
    assert [name for name in names if name.startswith(("outputs", ".venv", ".git/", "shared"))] == []


def test_the_metadata_is_complete(bare: Path) -> None:
    found = next(
        iter(
            metadata.distributions(name="llmbench", path=[str(path) for path in bare.parent.parent.glob("lib/*/site-packages")])
        )
    )
    assert found.metadata["License-Expression"] == "Apache-2.0"
    assert found.metadata["Requires-Python"] == ">=3.11"
    assert "fine-tune" in found.metadata["Description"].lower()
    assert set(found.metadata.get_all("Provides-Extra") or []) == set(PROJECT["optional-dependencies"])


def test_a_bare_install_answers_help(bare: Path, tmp_path: Path) -> None:
    done = run(bare, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Fine-tune open language models" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "my.yaml"),
        ("index", "rag/handbook.yaml"),
        ("search", "rag/handbook.yaml", "camera"),
        ("serve", "my-serve.yaml"),
        ("compare", "recipes/compare.yaml"),
        ("sweep", "recipes/sweep.yaml"),
        ("app",),
        ("demo",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_bare_install_says_which_extra_a_verb_needs(bare: Path, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    (tmp_path / "my.yaml").write_text("name: my\ndata:\n  train:\n    - path: rows.jsonl\n")
    (tmp_path / "my-serve.yaml").write_text("variants: [{name: base}]\n")
    done = run(bare, *arguments, folder=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("[1/")]  # the demo's first step
    assert len(lines) == 1, done.stderr
    found = re.fullmatch(r"`llmbench .+` needs (.+), which is not installed\. Run: pip install 'llmbench\[(.+)\]'", lines[0])
    assert found is not None, lines[0]
    assert set(found.group(2).split(",")) <= set(PROJECT["optional-dependencies"])
    assert not (tmp_path / "outputs").exists()


def test_a_bare_install_finds_its_bundle_in_the_wheel(bare: Path, tmp_path: Path) -> None:
    bundle = bundle_of(bare, tmp_path)
    assert bundle.is_relative_to(bare.parent.parent)
    assert travelling() - {path.relative_to(bundle).as_posix() for path in bundle.rglob("*")} == set()


def test_a_bare_install_lists_and_copies_the_recipes(bare: Path, tmp_path: Path) -> None:
    listed = run(bare, "new", folder=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert [name for name in assets.documents() if name not in listed.stdout] == []
    copied = run(bare, "new", "handbook", "mine.yaml", folder=tmp_path)
    assert copied.returncode == 0, copied.stderr
    code = "from llmbench import recipe; print(recipe.load_any('mine.yaml').documents[0].path)"
    done = subprocess.run([str(bare), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == bundle_of(bare, tmp_path) / "rag" / "handbook"


def test_every_document_loads_from_a_bare_install(bare: Path, tmp_path: Path) -> None:
    code = "from llmbench import assets, recipe\nfor name in assets.documents(): print(recipe.load_any(name).source)"
    done = subprocess.run([str(bare), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == len(assets.documents())


def test_a_bare_install_has_the_model(bare: Path, tmp_path: Path) -> None:
    code = "from llmbench import assets; print(assets.model_folder(assets.TINY))"
    done = subprocess.run([str(bare), "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert {path.name for path in Path(done.stdout.strip()).iterdir()} >= model_files()


def test_an_editable_install_finds_the_checkout(editable: Path, tmp_path: Path) -> None:
    assert bundle_of(editable, tmp_path) == ROOT
    assert run(editable, "new", folder=tmp_path).returncode == 0


def missing_packages(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, package and extra of each `MissingPackage(verb, "package", "extra")` in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MissingPackage":
            texts = [argument.value if isinstance(argument, ast.Constant) else None for argument in node.args[1:]]
            package, extra = texts
            if isinstance(package, str) and isinstance(extra, str):
                yield node.lineno, package, extra


def test_every_package_that_a_verb_may_miss_is_in_the_extra_that_its_message_names() -> None:
    extras: dict[str, set[str]] = {}

    def packages(extra: str) -> set[str]:
        if extra not in extras:
            extras[extra] = set()
            for requirement in PROJECT["optional-dependencies"][extra]:
                inner = re.fullmatch(r"llmbench\[(.+)\]", requirement)
                extras[extra] |= set().union(*map(packages, inner.group(1).split(","))) if inner else {name_of(requirement)}
        return extras[extra]

    wrong = []
    for path in (ROOT / "src").rglob("*.py"):
        for line, package, extra in missing_packages(path):
            known = packages(extra) if extra in PROJECT["optional-dependencies"] else set()
            if name_of(package) not in known and f"{package}-cpu" not in known:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {package} is not in {extra}")
    assert wrong == []


def test_no_extra_names_a_version_twice() -> None:
    """One place for each constraint: a package in two extras stands there with the same range."""
    constraints: dict[str, set[str]] = {}
    for requirements in [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]:
        for requirement in requirements:
            if not requirement.startswith("llmbench["):
                constraints.setdefault(name_of(requirement), set()).add(re.sub(r"\[.*?\]", "", requirement))
    assert {name: words for name, words in constraints.items() if len(words) > 1} == {}
