"""The trackers' own servers, on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

SECONDS = 240
"""What a server may take to start on a busy machine."""


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(
    arguments: list[str], url: str, log: Path, env: Mapping[str, str] = os.environ
) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a server, waits until it answers, and ends it with what it has started."""
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, *arguments], stdout=file, stderr=file, start_new_session=True, env={**env})
    try:
        end = time.monotonic() + SECONDS
        while not _answers(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def mlflow(folder: Path, port: int) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """MLflow's tracking server with its database and files in a folder."""
    arguments = [
        *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "kept")),
    ]
    env = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return started(arguments, f"http://127.0.0.1:{port}/health", folder / "server.log", env)
