"""A Redis of the tests' own, on a Unix socket in a temporary folder."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["Server"]


class Server:
    """Writes every command to the disk before it answers, so that nothing is lost when it is killed."""

    def __init__(self) -> None:
        import redis

        self.folder = Path(tempfile.mkdtemp(prefix="redis-", dir="/tmp"))  # a socket's path is short
        self.url = f"unix://{self.folder}/s"
        self.client: Any = redis.Redis.from_url(self.url, decode_responses=True)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", "0", "--unixsocket", f"{self.folder}/s", "--dir", str(self.folder), "--save", "",
                   "--appendonly", "yes", "--appendfsync", "always", "--daemonize", "no"]  # fmt: skip
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while True:
            try:
                self.client.ping()
                return
            except Exception:
                assert self._process.poll() is None and time.monotonic() < end, "redis-server does not start"
                time.sleep(0.02)

    def kill(self) -> None:
        """As kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def send(self, signal: int) -> None:
        assert self._process is not None
        self._process.send_signal(signal)

    def close(self) -> None:
        self.client.close()
        if self._process is not None:
            self.kill()
        shutil.rmtree(self.folder)
