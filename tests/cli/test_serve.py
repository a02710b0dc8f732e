"""`llmbench serve` as a program: what it prints, what it refuses, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

LLMBENCH = [sys.executable, "-m", "llmbench"]


class Mark(Protocol):
    """The fixture of tests/conftest.py."""

    env: dict[str, str]

    def alive(self) -> dict[int, str]: ...

    def left(self, seconds: float = 30.0) -> dict[int, str]: ...


def document(folder: Path, *variants: dict[str, Any], **engine: Any) -> Path:
    path = folder / "serve.yaml"
    engine = {"dtype": "float32", "cpu_kv_cache_gib": 0.25} | engine
    path.write_text(json.dumps({"variants": variants or ({"name": "base"},), "engine": engine, "gateway": {"port": 0}}))
    return path


def run(*words: str | Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LLMBENCH, "serve", *map(str, words)], capture_output=True, text=True, timeout=timeout)


def test_dry_run_prints_a_command_that_a_shell_can_run(tmp_path: Path, lora: Path, home: Path) -> None:
    path = document(tmp_path, {"name": "base"}, {"name": "tuned", "adapter": str(lora)}, {"name": "also", "adapter": str(lora)})
    done = run(path, "engine.max_model_len=512", "--dry-run")
    assert done.returncode == 0, done.stderr
    words = shlex.split(done.stdout)
    assert words[words.index("--max-model-len") + 1] == "512"
    modules = words[words.index("--lora-modules") + 1 :]
    assert len(modules) == 1
    assert Path(modules[0].partition("=")[2]).parent == home / "adapters"
    assert not (home / "logs").exists()


def refused(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_port_in_use_is_told_before_anything_is_loaded(tmp_path: Path, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = refused(run(document(tmp_path), "--port", str(port)))
    assert f"port {port} is in use. Choose another: gateway.port={port + 1}" in text
    assert not (home / "logs").exists()


def test_an_adapter_that_is_not_there_is_told_with_its_variant(tmp_path: Path) -> None:
    text = refused(run(document(tmp_path, {"name": "mine", "adapter": "nobody"})))
    assert "variant mine: adapter nobody is neither a folder nor a run" in text
    assert len(text.strip().splitlines()) == 1


def test_an_index_that_is_not_built_ends_the_start(tmp_path: Path, pipeline: Path, mark: Mark) -> None:
    path = document(tmp_path, {"name": "rag", "rag": str(pipeline)})
    done = subprocess.run([*LLMBENCH, "serve", str(path)], capture_output=True, text=True, timeout=240, env=mark.env)
    assert "index pages is not built. Run: llmbench index" in refused_while_loading(done)
    assert mark.left() == {}


def refused_while_loading(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_another_host_than_this_machine_needs_a_key(tmp_path: Path) -> None:
    assert "set gateway.api_key" in refused(run(document(tmp_path), "gateway.host=0.0.0.0"))


@contextmanager
def serving(path: Path, mark: Mark, *, until: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program and what it printed until a line holds `until`."""
    log = path.with_name("printed.txt")
    with (
        log.open("w") as file,
        subprocess.Popen(
            [*LLMBENCH, "serve", str(path)], stdout=file, stderr=subprocess.STDOUT, text=True, env=mark.env
        ) as process,
    ):
        try:
            end = time.monotonic() + 240
            while until not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.2)
            yield process, log.read_text()
        finally:
            process.kill()


def base_url(printed: str) -> str:
    return next(word for word in printed.split() if word.startswith("http://127.0.0.1:")).rstrip(".")


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.slow
def test_ctrl_c_while_loading_ends_every_process(tmp_path: Path, mark: Mark) -> None:
    with serving(document(tmp_path), mark, until="importing vLLM") as (process, _):
        assert any("launch.py" in line for line in mark.alive().values())
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert mark.left() == {}


@pytest.mark.slow
def test_a_dead_engine_ends_the_program_with_the_last_lines_of_its_log(tmp_path: Path, mark: Mark) -> None:
    path = document(tmp_path, restarts=0)
    with serving(path, mark, until="Ready after") as (process, printed):
        assert httpx.get(f"{base_url(printed)}/models").json()["data"][0]["id"] == "base"
        os.kill(next(pid for pid in mark.alive() if name_of(pid) == "VLLM::EngineCor"), signal.SIGKILL)
        assert process.wait(60) == 2
    text = path.with_name("printed.txt").read_text()
    assert "vLLM ended while serving" in text
    assert "The whole log: " in text
    assert "Traceback" not in text.partition("vLLM ended while serving")[0]
    assert mark.left() == {}


@pytest.mark.slow
def test_a_program_killed_for_good_leaves_no_process(tmp_path: Path, mark: Mark) -> None:
    with serving(document(tmp_path), mark, until="Ready after") as (process, _):
        assert {"VLLM::EngineCor", "VLLM::Worker"} <= {name_of(pid) for pid in mark.alive()}
        process.kill()
        process.wait(10)
        assert mark.left() == {}


def variants(path: Path, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    argv = [*LLMBENCH, "variants", *words, "--recipe", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env=env)


@pytest.mark.slow
def test_what_is_served_follows_the_document_and_the_commands(tmp_path: Path, mark: Mark) -> None:
    path = document(tmp_path)
    with serving(path, mark, until="Change what is served") as (process, printed):
        url = base_url(printed)

        def names() -> list[str]:
            return [model["id"] for model in httpx.get(f"{url}/models").json()["data"]]

        document(tmp_path, {"name": "base"}, {"name": "brief", "system": "Be brief."})
        done = variants(path, "reload", env=mark.env)
        assert (done.returncode, done.stdout) == (0, "add     brief\nDone.\n"), done.stderr
        assert names() == ["base", "brief"]
        done = variants(path, "add", "tuned", "--adapter", "nobody", env=mark.env)
        assert (done.returncode, done.stdout) == (2, "") and "neither a folder nor a run" in done.stderr
        assert variants(path, "add", "mine", "--system", "Be long.", env=mark.env).returncode == 0
        assert json.loads(variants(path, "list", "--json", env=mark.env).stdout)["variants"][2]["name"] == "mine"
        document(tmp_path, {"name": "only"})
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while names() != ["only"] and time.monotonic() < end:
            time.sleep(0.1)
        assert names() == ["only"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert "Reloaded: 1 added, 0 changed, 3 removed" in path.with_name("printed.txt").read_text()
    assert mark.left() == {}


def test_a_gateway_of_engines_elsewhere_is_a_container_without_gpus(tmp_path: Path) -> None:
    path = document(tmp_path, urls=["http://10.0.0.2:8001"], api_key="sesame")
    done = run(path, "gateway.keys=true", "model.device=cuda", "--emit", "compose")
    assert done.returncode == 0, done.stderr
    assert "llmbench:cpu" in done.stdout and "nvidia" not in done.stdout and "sesame" not in done.stdout


def test_engines_in_containers_take_the_place_of_those_that_the_document_names(tmp_path: Path) -> None:
    path = document(tmp_path, urls=["http://10.0.0.2:8001"], api_key="sesame")
    done = run(path, "gateway.keys=true", "--emit", "kubernetes", "--engines", "2", "--device", "cuda")
    assert done.returncode == 0, done.stderr
    assert "replicas: 2" in done.stdout and "nvidia.com/gpu" in done.stdout
    assert "10.0.0.2" not in done.stdout and "sesame" not in done.stdout
    done = run(path, "--engines", "2")
    assert done.returncode == 2 and "--engines go with --emit" in done.stderr
