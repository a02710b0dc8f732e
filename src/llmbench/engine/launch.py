"""Runs vLLM's API server with the arguments given.

A file of its own for the interpreter that has vLLM, which may have no llmbench.

On CPU, vLLM starts its engine and its worker with `spawn`, and each of the three processes imports everything again: 30 of
the 33 seconds of a start on two cores, and 0.6 GB. `spawn` is there to bind threads to cores; where threads are not bound
(`VLLM_CPU_OMP_THREADS_BIND=nobind`), `fork`, which vLLM uses on GPUs, does the same in a third of the time.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import runpy
import sys
from pathlib import Path
from typing import Any

_SERVERS = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")


def main() -> None:
    """Starts the API server under whichever name this vLLM has it."""
    if (
        os.environ.get("VLLM_CPU_OMP_THREADS_BIND") == "nobind"
        and importlib.import_module("vllm.platforms").current_platform.is_cpu()
    ):
        _fork_instead_of_spawn()
        if "--enable-lora" in sys.argv:  # the worker, which is forked, has it too
            _install("cpu_lora.py")
    if "--enable-lora" in sys.argv:
        _install("forget_lora.py")
    for name in _SERVERS:
        if _exists(name):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
            return
    raise SystemExit("ImportError: this vLLM has no API server that llmbench knows")


def _install(file: str) -> None:
    runpy.run_path(str(Path(__file__).with_name(file)))["install"]()


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _fork_instead_of_spawn() -> None:
    original = multiprocessing.get_context

    def get_context(method: str | None = None) -> Any:
        return original("fork" if method == "spawn" else method)

    multiprocessing.get_context = get_context


if __name__ == "__main__":
    main()
