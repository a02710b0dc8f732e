"""Stored copies of adapters: those that an engine has stay, and so does what somebody else put there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmbench.engine import store

OLD = time.time() - 7200


def copy(name: str, *, age: float = OLD) -> Path:
    folder = store.folder() / name
    folder.mkdir(parents=True)
    (folder / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    os.utime(folder, (age, age))
    return folder


def test_copies_that_nobody_has_are_removed() -> None:
    one, two = copy("a" * 16), copy("b" * 16)
    assert store.prune(dry_run=True) == [("a" * 16, 1000), ("b" * 16, 1000)]
    assert one.is_dir() and two.is_dir()
    assert len(store.prune()) == 2 and list(store.folder().iterdir()) == []
    assert store.prune() == []


def test_what_an_engine_holds_stays_until_it_lets_go() -> None:
    held, hold = copy("a" * 16), store.Hold()
    hold.take(held)
    hold.take(held)
    assert store.prune() == []
    hold.release(held)
    assert store.prune() == [("a" * 16, 1000)]


def test_a_hold_ends_with_its_process_however_it_ends() -> None:
    held = copy("a" * 16)
    program = "import sys, time; from pathlib import Path; from llmbench.engine import store\n"
    program += "hold = store.Hold(); hold.take(Path(sys.argv[1])); print(1, flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", program, str(held)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert store.prune() == []
        process.kill()
    assert len(store.prune()) == 1


@pytest.mark.parametrize("what", ["young", "another name", "a file of somebody's", "a link"])
def test_what_is_not_known_to_be_unused_stays(what: str, tmp_path: Path) -> None:
    match what:
        case "young":
            kept = copy("a" * 16)
            store.touch(kept)
        case "another name":
            kept = copy("my-own-adapters")
        case "a file of somebody's":
            kept = copy("a" * 16)
            (kept / "notes.txt").write_text("mine")
            os.utime(kept, (OLD, OLD))
        case _:
            store.folder().mkdir(parents=True)
            kept = store.folder() / ("a" * 16)
            kept.symlink_to(tmp_path)
    assert store.prune() == [] and kept.exists()
