"""What is not trusted runs in processes that have taken everything from themselves that it does not need."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llmbench.confined.process import ConfinedProcess, ProcessDied
from llmbench.data.formats import Chat
from llmbench.data.template import Renderer, Template
from llmbench.retrieval.reading import children
from llmbench.retrieval.reading.children import Child

LIMITS = {"memory": 2**30, "files": 9, "text": 9999}
READER = str(Path(children.__file__).with_name("child.py"))
PROGRAMS = {"reader": [READER], "renderer": ["-m", "llmbench.turns"]}


def program(folder: Path, body: str) -> ConfinedProcess:
    """A process that confines itself and then does what `body` says; `answers` is where its answers go."""
    path = folder / "program.py"
    path.write_text(
        "import json, os, sys, time\n"
        f"sys.path.insert(0, {str(Path(children.__file__).parents[3])!r})\n"
        "from llmbench.confined import inside\n"
        f"answers = inside.confine(json.loads(sys.argv[1]))\n{body}\nanswers.flush()\n"
    )
    return ConfinedProcess([str(path)], LIMITS)


def soon(seconds: float = 60) -> float:
    return time.monotonic() + seconds


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def rendering() -> Renderer:
    template = Template({"default": "{{ messages[0].content }}"}, {}, (), (), ())
    renderer = Renderer(template)
    renderer.send([Chat([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}])])
    list(renderer.receive())
    return renderer


def reading(folder: Path) -> Child:
    path = folder / "a.html"
    path.write_text("<p>words")
    child = Child()
    list(child.ask({"path": str(path), "kind": "html", "suffix": ".html"}))
    return child


@pytest.fixture(params=["reader", "renderer"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """One of the two, at work: its owner, and its number."""
    owner: Any = reading(tmp_path) if request.param == "reader" else rendering()
    return owner, (owner.process if request.param == "reader" else owner._process).pid


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_both_have_limits_and_ignore_an_interrupt(running: tuple[Any, int]) -> None:
    _, pid = running
    limits = Path(f"/proc/{pid}/limits").read_text()
    found = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert (found["Max file size"], found["Max core file size"]) == ("0", "0")
    assert found["Max address space"] == str(2 * 2**30)
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
    assert int(status["SigIgn"], 16) & 1 << (signal.SIGINT - 1)
    assert {str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in (1, 2)} == {"/dev/null"}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("kind", ["reader", "renderer"])
def test_a_process_ends_when_its_owner_is_collected(tmp_path: Path, kind: str) -> None:
    owner: Any = reading(tmp_path) if kind == "reader" else rendering()
    pid = (owner.process if kind == "reader" else owner._process).pid
    assert alive(pid)
    del owner
    gc.collect()
    assert not alive(pid)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_process_whose_parent_has_ended_before_it_was_bound_to_it_ends_at_once(name: str) -> None:
    command = [sys.executable, "-P", *PROGRAMS[name], json.dumps({**LIMITS, "parent": 1 if os.getpid() != 1 else 2})]
    done = subprocess.run(command, stdin=subprocess.PIPE, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, b"")


def test_what_a_library_prints_is_no_answer(tmp_path: Path) -> None:
    process = program(tmp_path, "print('noise', flush=True)\nos.write(1, b'noise')\nanswers.write(b'answer')")
    assert process.exactly(6, soon()) == b"answer"
    with pytest.raises(ProcessDied, match="code 0"):
        process.receive(9, soon())
    process.close()


def test_it_writes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "written"
    body = (
        f"try:\n    with open({str(path)!r}, 'w') as file:\n        file.write('x')\n"
        "except OSError as error:\n    answers.write(error.strerror.encode())"
    )
    process = program(tmp_path, body)
    assert process.exactly(14, soon()) == b"File too large"
    process.close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("body", "words", "late"),
    [
        ("os.kill(os.getpid(), 11)", "SIGSEGV", False),
        ("sys.exit(3)", "code 3", False),
        ("inside.allow(0)\nwhile True: pass", "SIGXCPU", True),
    ],
)
def test_how_it_died_is_told_in_words(tmp_path: Path, body: str, words: str, late: bool) -> None:
    process = program(tmp_path, body)
    with pytest.raises(ProcessDied) as caught:
        process.receive(1, soon())
    assert (str(caught.value), caught.value.out_of_time) == (words, late)
    with pytest.raises(ProcessDied, match=words):
        process.send(b"x" * 2**20)
    process.close()


def test_an_answer_that_does_not_come_is_waited_for_until_its_time(tmp_path: Path) -> None:
    process = program(tmp_path, "answers.write(b'ab')\nanswers.flush()\ntime.sleep(600)")
    assert process.exactly(2, soon()) == b"ab"
    with pytest.raises(TimeoutError):
        process.exactly(1, soon(0.05))
    pid = process.pid
    process.close()
    process.close()
    assert not alive(pid)


def test_more_than_a_pipe_holds_is_sent_whole(tmp_path: Path) -> None:
    process = program(tmp_path, "answers.write(str(len(sys.stdin.buffer.readline())).encode())")
    process.send(b"x" * 5_000_000 + b"\n")
    assert process.exactly(7, soon()) == b"5000001"
    process.close()


def test_a_renderer_that_is_killed_is_named_with_the_signal(tmp_path: Path) -> None:
    renderer = rendering()
    assert renderer._process is not None
    os.kill(renderer._process.pid, signal.SIGKILL)
    with renderer, pytest.raises(Exception, match=r"renders the chat template died \(SIGKILL\)\. Set data\.chat_template"):
        renderer.send([Chat([{"role": "user", "content": "Hi"}])])
        list(renderer.receive())
