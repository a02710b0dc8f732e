"""Starting, watching and ending the engine's process tree, with a stand-in for vLLM."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest

from llmbench.engine import Engine, Progress, inspect
from llmbench.engine import supervisor as supervisor_module
from llmbench.engine.process import _environment
from llmbench.errors import EngineError, LlmbenchError
from llmbench.recipe import ServeRecipe

SUPERVISOR = str(Path(supervisor_module.__file__))

FAMILY = """
    # A parent, a child and a grandchild in a group of its own; all of them ignore a polite request to end.
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if os.fork() == 0:
        if os.fork() == 0:
            os.setpgid(0, 0)
        time.sleep(600)
    print("all there", flush=True)
    time.sleep(600)
"""


class Mark(Protocol):
    """The fixture of tests/conftest.py."""

    name: str
    value: str
    env: dict[str, str]

    def alive(self) -> dict[int, str]: ...

    def left(self, seconds: float = 30.0) -> dict[int, str]: ...


def recipe(python: Path, **engine: Any) -> ServeRecipe:
    return ServeRecipe.model_validate({"variants": [{"name": "base"}], "engine": {"python": str(python)} | engine})


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.05)


def test_a_failed_start_tells_the_cause_and_the_last_lines(stand_in: Callable[[str], Path]) -> None:
    python = stand_in(
        """
        import sys
        print("(Worker pid=7) INFO 11-23 19:10:49 [x.py:1] Starting to load model")
        print("(Worker pid=7) ERROR 11-23 19:10:50 [x.py:2] ValueError: head size 16 is not supported")
        print("RuntimeError: Engine core initialization failed. See root cause above.")
        sys.exit(1)
        """
    )
    with Engine(recipe(python), {}) as engine, pytest.raises(EngineError) as caught:
        engine.wait()
    first, *rest = str(caught.value).splitlines()
    assert first == "vLLM ended while loading the weights (exit code 1): ValueError: head size 16 is not supported"
    assert any("Starting to load model" in line for line in rest)
    assert str(engine.log) in rest[-1]
    assert engine.problem is not None and "head size 16" in engine.problem


def test_a_start_that_takes_too_long_says_what_it_was_doing(stand_in: Callable[[str], Path]) -> None:
    with (
        Engine(recipe(stand_in("import time; time.sleep(600)"), start_timeout=0.1), {}) as engine,
        pytest.raises(EngineError, match=r"not ready .*it was importing vLLM.*engine\.start_timeout"),
    ):
        engine.wait()


# It may die between the look whether somebody listens and the request, and httpx leaves such a socket open.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")
def test_an_engine_that_dies_of_the_first_request_is_not_ready(stand_in: Callable[[str], Path]) -> None:
    python = stand_in(
        """
        import http.server, json, socketserver, sys, threading, time

        class Vllm(http.server.BaseHTTPRequestHandler):
            # Its core dies of the first request, and the process that answers ends a moment later, as vLLM's does.
            dead = False

            def say(self, status, body):
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                models = {"data": [{"max_model_len": 1024}]}
                self.say(503 if Vllm.dead else 200, json.dumps(models).encode())

            def do_POST(self):
                Vllm.dead = True
                print("RuntimeError: no kernel of this adapter on a CPU")
                self.say(500, b"{}")
                threading.Timer(1.0, server.shutdown).start()

            def address_string(self):
                return "socket"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        path = next(value for option, value in zip(sys.argv, sys.argv[1:]) if option == "--uds")
        server = Server(path, Vllm)
        server.serve_forever()
        """
    )
    with (
        Engine(recipe(python), {}) as engine,
        pytest.raises(
            EngineError, match=r"ended while answering once.*\(exit code 0\): RuntimeError: no kernel of this adapter"
        ),
    ):
        engine.wait()


def test_progress_tells_seconds_and_phases(stand_in: Callable[[str], Path]) -> None:
    python = stand_in(
        """
        import time
        print("INFO non-default args: {}"); time.sleep(0.7)
        print("INFO Starting to load model x"); time.sleep(0.7)
        """
    )
    seen: list[Progress] = []
    with Engine(recipe(python), {}) as engine, pytest.raises(EngineError):
        engine.wait(seen.append)
    phases = list(dict.fromkeys(state.phase for state in seen))
    assert phases[-2:] == ["reading the model's configuration", "loading the weights"]
    assert [state.seconds for state in seen] == sorted(state.seconds for state in seen)


def test_stopping_ends_children_that_do_not_want_to(
    mark: Mark, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mark.name, mark.value)
    monkeypatch.setattr("llmbench.engine.process._GRACE", 0.5)
    engine = Engine(recipe(stand_in(FAMILY)), {})
    with engine:
        until(lambda: len(mark.alive()) >= 4)  # supervisor, parent, child, grandchild
        assert stat.S_IMODE(engine.socket.parent.stat().st_mode) == 0o700
    assert mark.alive() == {}
    assert not engine.socket.parent.exists()
    engine.stop()  # a second time does nothing


def test_a_killed_llmbench_leaves_no_process(mark: Mark, tmp_path: Path, stand_in: Callable[[str], Path]) -> None:
    program = (
        "import sys, time; from llmbench.engine import Engine; from llmbench.recipe import ServeRecipe\n"
        "r = ServeRecipe.model_validate({'variants': [{'name': 'base'}], 'engine': {'python': sys.argv[1]}})\n"
        "engine = Engine(r, {}); engine.start(); time.sleep(600)"
    )
    argv = [sys.executable, "-c", program, str(stand_in(FAMILY))]
    with subprocess.Popen(argv, env=mark.env | {"TMPDIR": str(tmp_path)}) as process:
        until(lambda: len(mark.alive()) >= 5)
        process.kill()
    assert mark.left() == {}
    assert list(tmp_path.glob("llmbench-*")) == []


def test_a_killed_supervisor_is_noticed_and_its_children_end(
    mark: Mark, stand_in: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mark.name, mark.value)
    with Engine(recipe(stand_in(FAMILY)), {}) as engine:
        until(lambda: len(mark.alive()) >= 4)
        supervisor = next(pid for pid, line in mark.alive().items() if SUPERVISOR in line)
        os.kill(supervisor, signal.SIGKILL)
        until(lambda: engine.problem is not None)
        with pytest.raises(EngineError, match="vLLM ended"):
            engine.check()
    assert mark.left() == {}


def test_when_the_first_process_dies_the_others_are_ended(mark: Mark, tmp_path: Path) -> None:
    program = tmp_path / "family.py"
    program.write_text("import os, time\nif os.fork() == 0: time.sleep(600)\nos.kill(os.getpid(), 9)")
    folder = tmp_path / "folder"
    folder.mkdir()
    argv = [sys.executable, SUPERVISOR, str(folder), "1", sys.executable, str(program)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=mark.env) as process:
        assert process.wait(60) == 128 + signal.SIGKILL
    assert mark.alive() == {}
    assert not folder.exists()


def test_an_interpreter_without_vllm_is_told_how_to_get_it(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    with pytest.raises(EngineError, match=r"has no vLLM\. Run: .*/bin/python -m pip install"):
        inspect(bare / "bin" / "python")


def test_an_interpreter_that_does_not_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"engine\.python: .*nowhere cannot be run as Python"):
        inspect(tmp_path / "nowhere")


def test_an_old_vllm_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\necho \'{"module": true, "vllm": "0.11.2"}\'\n')
    path.chmod(0o755)
    with pytest.raises(EngineError, match=r"vLLM 0\.11\.2 .* is too old"):
        inspect(path)


def test_a_start_that_cannot_begin_leaves_no_folder(
    stand_in: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "logs").write_text("mine")
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    document = ServeRecipe.model_validate({"variants": [{"name": "base"}], "engine": {"python": str(stand_in(""))}})
    with pytest.raises(LlmbenchError, match=r"vLLM's log cannot be written there \(File exists\)"), Engine(document, {}):
        pass
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_gpu_that_the_recipe_asks_for_must_be_one_that_vllm_can_use(stand_in: Callable[[str], Path]) -> None:
    document = ServeRecipe.model_validate(
        {"variants": [{"name": "base"}], "model": {"device": "cuda"}, "engine": {"python": str(stand_in(""))}}
    )
    with pytest.raises(EngineError, match=r"runs on the CPU"), Engine(document, {}):
        pass


def test_settings_of_the_shell_do_not_reach_around_the_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_SERVER_DEV_MODE", "VLLM_CPU_KVCACHE_SPACE"):
        monkeypatch.setenv(name, "1")
    env = _environment(ServeRecipe.model_validate({"variants": [{"name": "base"}]}), tmp_path, "cpu")
    assert (
        not {"VLLM_API_KEY", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_SERVER_DEV_MODE", "VLLM_CPU_KVCACHE_SPACE"} & env.keys()
    )
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"], env["HF_HUB_OFFLINE"]) == ("1", "1", "1")
    assert env["TMPDIR"] == str(tmp_path)


def test_a_small_model_is_computed_by_one_thread_unless_the_shell_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    document = ServeRecipe.model_validate({"variants": [{"name": "base"}]})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert _environment(document, tmp_path, "cpu")["OMP_NUM_THREADS"] == "1"
    assert "OMP_NUM_THREADS" not in _environment(document, tmp_path, "cuda")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert _environment(document, tmp_path, "cpu")["OMP_NUM_THREADS"] == "2"
