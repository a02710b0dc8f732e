"""How long `llmbench serve` takes until it answers, and how much of that is llmbench's own part beside vLLM's.

    python benchmarks/start.py recipes/serve.yaml [--rounds 5]

vLLM's part runs from the start of its process to its first healthy answer; everything before and after is llmbench's own:
reading the document and checking adapters before; warming vLLM up, proving each adapter and opening the gateway after. The time
of each line that it prints is given too. A first start, which makes the index and warms the disk's cache, is not counted.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path


def answers(at: Path | int, path: str) -> bool:
    """Whether a GET on a Unix socket or a port of this machine is answered with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", at if isinstance(at, int) else 80, timeout=2)
    try:
        if isinstance(at, Path):
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(2)
            connection.sock.connect(str(at))
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def until(found: Callable[[], bool], process: subprocess.Popen[str]) -> float:
    """When something first holds."""
    while not found():
        if process.poll() is not None:
            sys.exit(f"llmbench serve ended with {process.returncode}")
        time.sleep(0.005)
    return time.monotonic()


def sockets(parent: int) -> list[Path]:
    """Those that a vLLM below a process was told to listen on."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                above = int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[1])
            except OSError:
                continue
            if above == parent and "--uds" in words:
                found.append(Path(words[words.index("--uds") + 1]))
    return found


def start(document: str) -> tuple[float, float, float, list[tuple[float, str]]]:
    """Seconds until vLLM's process is there, from then until it is healthy, and from then until the gateway answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lines: list[tuple[float, str]] = []
    begun = time.monotonic()
    command = [sys.executable, "-m", "llmbench", "serve", document, f"gateway.port={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout
        reading = threading.Thread(target=lambda: lines.extend((time.monotonic() - begun, line.strip()) for line in printed))
        reading.start()
        try:
            spawned = until(lambda: bool(sockets(process.pid)), process)
            [at] = sockets(process.pid)
            healthy = until(lambda: at.exists() and answers(at, "/health"), process)
            ready = until(lambda: answers(port, "/ready"), process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()
            reading.join()
    return spawned - begun, healthy - spawned, ready - healthy, lines


def main() -> None:
    """Prints a table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("document")
    arguments.add_argument("--rounds", type=int, default=5)
    options = arguments.parse_args()
    start(options.document)
    rounds = [start(options.document) for _ in range(options.rounds)]
    for at, line in rounds[-1][3]:
        print(f"  {at:6.2f} s  {line[:140]}")
    print(f"\n{os.cpu_count()} cores, Python {platform.python_version()}, {options.rounds} starts; median (lowest to highest)")
    print("| part | seconds |\n| --- | --- |")
    own = [before + after for before, _, after, _ in rounds]
    for name, values in (
        ("llmbench, before vLLM's process", [one[0] for one in rounds]),
        ("vLLM, until it is healthy", [one[1] for one in rounds]),
        ("llmbench, after that", [one[2] for one in rounds]),
        ("llmbench's own part", own),
    ):
        print(f"| {name} | {statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f}) |")


if __name__ == "__main__":
    main()
