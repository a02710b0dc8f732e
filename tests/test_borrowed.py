"""Private names of other packages: each is what was recorded, a change is noticed, and a replacement ends with its block."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbench import borrowed
from llmbench.borrowed import Found, Patch
from llmbench.engine import patches as engine
from llmbench.errors import LlmbenchError
from llmbench.retrieval.embedding.light import patches as light
from llmbench.training.kernels import patches as training

ROOT = Path(__file__).resolve().parent.parent
IMPORTED = (*training.ROWS, *light.ROWS)
ROWS = (*IMPORTED, *engine.ROWS)


@pytest.fixture(scope="module")
def installed() -> dict[Patch, Found]:
    from llmbench.training.selftest import borrowed_names

    return {found.patch: found for found in (*borrowed_names(), *map(borrowed.look, light.ROWS), *engine.look())}


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_borrowed_name_is_what_was_recorded(row: Patch, installed: dict[Patch, Found]) -> None:
    found = installed[row]
    if found.version is None:
        pytest.skip(f"{row.package} is not installed here")
    assert found.signature == row.signature


def test_looking_imports_no_vllm() -> None:
    from llmbench.training.selftest import borrowed_names

    borrowed_names()
    engine.look()
    assert "vllm" not in sys.modules


@pytest.fixture
def stranger() -> Iterator[types.ModuleType]:
    """A module that stands for another package's next version."""
    module = types.ModuleType("stranger")
    sys.modules["stranger"] = module
    yield module
    del sys.modules["stranger"]


@pytest.mark.parametrize("row", IMPORTED, ids=str)
def test_another_signature_is_noticed_and_so_is_a_name_that_is_gone(row: Patch, stranger: types.ModuleType) -> None:
    def other(self: Any, something: Any, *, more: int = 0) -> None: ...

    moved = replace(row, owner="stranger", package="pytest")  # which is installed, as an extra need not be
    gone = borrowed.look(moved)
    assert (gone.state, gone.signature) == ("differs", None)
    setattr(stranger, row.name, other)
    found = borrowed.look(replace(moved, purpose="another"))
    assert (found.state, found.signature) == ("differs", "(self, something, *, more=...)")
    assert row.signature in found.line() and row.without in found.line()


@pytest.mark.parametrize("row", engine.ROWS, ids=str)
def test_another_signature_is_noticed_in_a_file_of_vllm(row: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = row.owner.split(":")[1]
    monkeypatch.setattr(borrowed, "version", lambda package: "0.33.0")
    text = f"class {kind}:\n    def {row.name}{row.signature}: ...\n"
    monkeypatch.setattr(engine, "_text", lambda path: text)
    assert engine._look(row).state == "ok"
    monkeypatch.setattr(engine, "_text", lambda path: text.replace("(self, ", "(self, layer, "))
    assert engine._look(row).state == "differs"
    monkeypatch.setattr(engine, "_text", lambda path: None)
    assert (engine._look(row).state, engine._look(row).signature) == ("differs", None)


def of_stranger(name: str, signature: str, **more: Any) -> Patch:
    given: dict[str, Any] = {
        "use": "replaced",
        "purpose": "a test",
        "without": "it is slower",
        "package": "pytest",
        "versions": ">=9,<10",
    }
    return Patch(owner="stranger", name=name, signature=signature, **(given | more))


def test_a_replacement_ends_with_its_block_also_by_an_error(stranger: types.ModuleType) -> None:
    def one(x: int) -> int:
        return x

    vars(stranger).update(one=one, limit=8)
    changes = {of_stranger("one", "(x)"): abs, of_stranger("limit", "int"): 64}
    with pytest.raises(ZeroDivisionError), borrowed.replaced(changes):
        assert (stranger.one, stranger.limit) == (abs, 64)
        raise ZeroDivisionError
    assert (stranger.one, stranger.limit) == (one, 8)


def test_an_inherited_name_is_inherited_again(stranger: types.ModuleType) -> None:
    class Base:
        def step(self) -> int:
            return 1

    class Derived(Base): ...

    vars(stranger).update(Derived=Derived)
    with borrowed.replaced({replace(of_stranger("step", "(self)"), owner="stranger:Derived"): lambda self: 2}):
        assert Derived().step() == 2
    assert "step" not in vars(Derived) and Derived().step() == 1


def test_what_differs_is_left_alone_and_said_once(stranger: types.ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def one(x: int, y: int = 0) -> int:
        return x

    vars(stranger).update(one=one)
    patch = of_stranger("one", "(x)", purpose="said once")
    for _ in range(2):
        with borrowed.replaced({patch: abs}):
            assert stranger.one is one
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("stranger.one is (x, y=...) and not (x). Without it: it is slower.")


def test_what_would_be_wrong_without_is_refused(stranger: types.ModuleType) -> None:
    patch = of_stranger("gone", "(x)", required=True)
    said = r"stranger\.gone is missing\. .* Run: pip install 'pytest>=9,<10'$"
    with pytest.raises(LlmbenchError, match=said) as caught, borrowed.replaced({patch: abs}):
        raise AssertionError("not reached")
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_no_difference() -> None:
    found = borrowed.look(of_stranger("one", "(x)", package="no-such-package"))
    assert (found.state, found.version) == ("not installed", None)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_versions_are_those_of_the_project(row: Patch) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    every = [*project["project"]["dependencies"], *(d for e in project["project"]["optional-dependencies"].values() for d in e)]
    ranges = {found[1]: found[2] for one in every if (found := re.match(r"([\w-]+)(?:\[.*?\])?([<>=!~][^;]*)", one))}
    assert ranges[row.package].strip() == row.versions


PRIVATE = re.compile(r"^_[a-z]\w*$")


def used(path: Path) -> set[str]:
    """Private names that a file reads, sets or calls on an object other than `self`, or imports from another package."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls")):
                continue
            case ast.Attribute(attr=name):
                found.add(name)
            case ast.Call(func=ast.Name(id="getattr" | "hasattr" | "setattr"), args=[_, ast.Constant(value=str(name)), *_]):
                found.add(name)
            case ast.ImportFrom(module=str(module), names=names) if not module.startswith("llmbench"):
                found.update(alias.name for alias in names)
    return set(filter(PRIVATE.match, found))


def defined(path: Path) -> set[str]:
    """Private names of functions, of methods, and of what objects of a file's own keep or call on themselves."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.FunctionDef(name=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
                found.add(name)
    return set(filter(PRIVATE.match, found))


def methods(path: Path) -> set[str]:
    """Names of the methods that a file's classes define."""
    kinds = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ClassDef)]
    return {node.name for kind in kinds for node in kind.body if isinstance(node, ast.FunctionDef)}


def test_every_private_name_of_another_package_is_a_row() -> None:
    """By the names alone: what training, the engine and the embedder read, set, call or override is in a register."""
    from llmbench.training.methods import grpo, orpo, trainer

    package = ROOT / "src" / "llmbench"
    training = list((package / "training").rglob("*.py"))
    others = [path for room in ("engine", "retrieval/embedding") for path in (package / room).rglob("*.py")]
    kinds = (*orpo.Trainer.__mro__, *trainer.Trainer.__mro__, *grpo.of_trl(vllm=False).GRPOTrainer.__mro__)
    theirs = {name for kind in kinds if not kind.__module__.startswith("llmbench") for name in vars(kind)}
    own = set().union(*map(defined, [*training, *others]))
    overridden = set(filter(PRIVATE.match, set().union(*map(methods, training)) & theirs))
    rows = {part for row in ROWS for part in f"{row.owner.replace(':', '.')}.{row.name}".split(".")}
    assert set().union(*map(used, [*training, *others])) - (own - theirs) - rows == set()
    assert overridden - rows == set()
    assert {"_send_telemetry", "_save_checkpoint", "_get_grad_norm"} <= overridden
