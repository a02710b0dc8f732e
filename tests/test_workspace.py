"""Names, places, locks, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from llmbench import recipe, runs, workspace
from llmbench.cli.main import cli
from llmbench.errors import LlmbenchError


def test_outputs_live_under_the_working_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("LLMBENCH_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    assert workspace.home() == tmp_path / "outputs"
    assert workspace.runs() == tmp_path / "outputs" / "runs"
    assert workspace.indexes() == tmp_path / "outputs" / "indexes"
    assert workspace.comparisons() == tmp_path / "outputs" / "comparisons"


def test_llmbench_home_moves_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "elsewhere"))
    assert workspace.home() == tmp_path / "elsewhere"


def test_llmbench_cache_lets_workspaces_share_theirs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, home: Path) -> None:
    assert workspace.cached("data") == home / "cache" / "data"
    monkeypatch.setenv("LLMBENCH_CACHE", str(tmp_path / "kept"))
    assert workspace.cached("data") == tmp_path / "kept" / "data"
    assert workspace.cache() == tmp_path / "kept"
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700
    assert not (home / "cache").exists()


@pytest.mark.parametrize("name", ["a", "sft-lora", "qwen3.5_run-2", "0", "x" * 64])
def test_a_plain_name_is_allowed(name: str) -> None:
    assert workspace.check_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", ".hidden", "-a", "A", "a b", "é", "x" * 65, "a\n", "a\0"])
def test_a_name_that_could_leave_its_folder_or_hide_is_refused(name: str) -> None:
    with pytest.raises(LlmbenchError, match="is not allowed"):
        workspace.check_name(name, "run")


def test_a_file_is_written_whole_and_readable_by_others(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "state.json"
    workspace.write_json(target, {"größe": 1})
    assert json.loads(target.read_text(encoding="utf-8")) == {"größe": 1}
    assert target.stat().st_mode & 0o777 == 0o644
    assert list(target.parent.iterdir()) == [target]


def test_an_error_while_writing_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    workspace.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), workspace.atomic(target) as file:
        file.write("new")
        file.write(str(1 // 0))
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@contextmanager
def small_disk() -> Iterator[None]:
    """No file may grow past 4,096 bytes: writing past it fails as on a full disk, with an OSError.

    It holds around the one call and not around the test: the report of the tests is a file too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    workspace.write_text(target, "old")
    full = pytest.raises(LlmbenchError, match=r"a\.txt: cannot be written \(File too large\)\. Free some space")
    with full as caught, small_disk():
        workspace.write_text(target, "new" * 10_000)
    assert "\n" not in str(caught.value)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LlmbenchError, match=r"/file is a file, not a folder\. Move it, or choose another folder"):
        workspace.write_text(tmp_path / "file" / "a.txt", "x")


@pytest.mark.parametrize("verb", ["train", "check", "runs"])
def test_a_home_that_is_no_folder_is_named(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name, is_ in (("file", "is a file, not a folder"), ("link", "is a broken link")):
        monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / name))
        result = CliRunner().invoke(cli, [verb] if verb == "runs" else [verb, "recipes/sft-lora.yaml"])
        assert str(result.exception) == f"{tmp_path / name} {is_}. Move it, or set LLMBENCH_HOME to a folder."
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_whose_place_is_taken_by_a_file_or_a_link_to_nothing_is_refused_at_once(home: Path) -> None:
    document = recipe.load("recipes/sft-lora.yaml", recipe.TrainRecipe)
    (home / "runs").mkdir(parents=True)
    place = home / "runs" / document.name
    place.write_text("mine")
    with pytest.raises(LlmbenchError, match=rf"{document.name} is a file, not a folder\. Move it, or choose another name"):
        runs.check(document, overwrite=True)
    assert place.read_text() == "mine"
    place.unlink()
    place.symlink_to("nowhere")
    with pytest.raises(LlmbenchError, match=rf"{document.name} is a broken link"):
        runs.check(document)


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    workspace.write_text(target, "old")
    code = (
        "import sys, time; from pathlib import Path; from llmbench import workspace\n"
        f"with workspace.atomic(Path({str(target)!r})) as file:\n"
        "    file.write('new' * 100_000); file.flush(); print('half', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"half\n"
        child.kill()
    assert target.read_text() == "old"


def test_a_second_holder_of_a_lock_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    folder = tmp_path / "my-run"
    refused = pytest.raises(LlmbenchError, match=rf"run my-run is in use by process {os.getpid()}\.")
    with workspace.lock(folder, "run"), refused, workspace.lock(folder, "run"):
        pass
    with workspace.lock(folder, "run"):
        pass


def test_a_lock_where_nothing_can_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").mkdir()  # as little to be opened as another user's, by root too
    for folder in (tmp_path / "file" / "indexes" / "a", Path("/proc/nope/a"), tmp_path / "run"):
        with (
            pytest.raises(
                LlmbenchError, match=r"(file is a file, not a folder|cannot be written \(.+\))\. .*hoose another folder"
            ),
            workspace.lock(folder, "x"),
        ):
            pass
    assert not workspace.held(tmp_path / "file" / "indexes" / "a")


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    code = (
        "import time; from pathlib import Path; from llmbench import workspace\n"
        f"with workspace.lock(Path({str(tmp_path)!r}), 'run'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        with pytest.raises(LlmbenchError, match=f"in use by process {child.pid}"), workspace.lock(tmp_path, "run"):
            pass
        child.kill()
        child.wait()
    deadline = time.monotonic() + 10
    while True:
        try:
            with workspace.lock(tmp_path, "run"):
                return
        except LlmbenchError:
            assert time.monotonic() < deadline


def test_looking_at_a_lock_neither_takes_it_nor_keeps_others_from_it(tmp_path: Path) -> None:
    """Somebody who watches runs all the time must not make a training fail that begins meanwhile."""
    assert not workspace.held(tmp_path)
    with workspace.lock(tmp_path, "run"):
        assert workspace.held(tmp_path)
        written = (tmp_path / ".lock").read_text(encoding="utf-8")
    assert not workspace.held(tmp_path)
    assert (tmp_path / ".lock").read_text(encoding="utf-8") == written

    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            workspace.held(tmp_path)

    watchers = [threading.Thread(target=watch) for _ in range(3)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(50):
            with workspace.lock(tmp_path, "run"):
                pass
    finally:
        over.set()
        for watcher in watchers:
            watcher.join()


def test_a_lock_names_its_machine(tmp_path: Path) -> None:
    assert workspace.holder(tmp_path) is None
    with workspace.lock(tmp_path, "run"):
        found = workspace.holder(tmp_path)
        assert found is not None and found.here and found.process == os.getpid()
        (tmp_path / ".lock").write_text("77 node-7")
        with pytest.raises(LlmbenchError, match="in use by process 77 on node-7"), workspace.lock(tmp_path, "run"):
            pass
    (tmp_path / ".lock").write_text("77")
    assert workspace.holder(tmp_path) == workspace.LockHolder(77, os.uname().nodename)  # as earlier versions wrote it


def test_of_each_kind_of_log_the_newest_stay(home: Path) -> None:
    folder = home / "logs"
    folder.mkdir(parents=True)
    for day in range(1, 26):
        (folder / f"engine-202601{day:02}-000000-1.log").touch()
    (folder / "engine-notes.log").touch()
    kept = workspace.new_log("compress", "llm-compressor's", task="ask")
    assert kept.name.endswith("-ask.log") and len(list(folder.iterdir())) == 27
    workspace.new_log("engine", "vLLM's")
    names = sorted(path.name for path in folder.glob("engine-*"))
    assert len(names) == 21 and names[0] == "engine-20260107-000000-1.log" and "engine-notes.log" in names
