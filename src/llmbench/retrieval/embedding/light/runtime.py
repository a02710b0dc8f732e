"""ONNX Runtime and OpenVINO: an encoder's graph, kept in the workspace's cache, and the session that computes it.

Each core takes batches of its own in a session that uses one thread: no core waits for another between the operators, and
batches stay small enough for the cache of a core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmbench import hardware, workspace
from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding.light import graph, weights
from llmbench.retrieval.embedding.light.layout import Layout
from llmbench.retrieval.embedding.light.pooling import pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Graph", "model"]

_TOKENS = 256
"""Tokens of a batch in float32. Activations of 1,536 values a token are 1.5 MB, which a core's cache still helps with: on an
AVX2 core 256 gave 1.03 to 1.11 times the documents of 1,024, and 1.04 to 1.24 times those of 4,096."""


class Graph:
    """A session of ONNX Runtime or OpenVINO. Several threads may encode at once."""

    def __init__(self, layout: Layout, fingerprint: str, backend: Literal["onnx", "openvino"], *, int8: bool) -> None:
        """Opens the session; writes the graph where this is its first use.

        Raises:
            MissingPackage: the runtime is not installed.
            LlmbenchError: the runtime refuses the graph.
        """
        self.workers = hardware.cores()
        self.budget = 1 if int8 else _TOKENS  # see graph.write: eight bits take one text at a time
        self.device = "cpu"
        self._pooling = layout.pooling
        found = model(layout, fingerprint, int8=int8)
        try:
            self._run = _onnx(found) if backend == "onnx" else _openvino(found)
        except ImportError as error:
            name = "onnxruntime" if backend == "onnx" else "openvino"
            raise MissingPackage("index", error.name or name, "rag" if backend == "onnx" else "openvino") from error
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            where, way = (found, "Remove that file, or use") if isinstance(found, Path) else ("the model's graph", "Use")
            raise LlmbenchError(f"{backend} cannot load {where}: {reason}. {way} backend: torch.") from error

    def enter(self) -> None:
        """A session computes in the thread that calls it: nothing to ready."""

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Token numbers of some texts -> (rows, width), before any norm."""
        import numpy as np

        lengths = [len(row) for row in rows]
        ids = np.zeros((len(rows), max(lengths)), dtype=np.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        return pool(self._run(ids, np.asarray(lengths, dtype=np.int32)), lengths, self._pooling)


def model(layout: Layout, fingerprint: str, *, int8: bool) -> Path | bytes:
    """The graph's file in the workspace's cache, written where it is not there yet; never in the model's folder.

    Its content where it cannot be kept: a search does not need a disk with room, only a second to write the graph again.
    """
    path = workspace.cached("embedders", fingerprint[:32], f"{'int8' if int8 else 'float32'}-{graph.VERSION}.onnx")
    if not os.access(path, os.R_OK):
        content = graph.write(weights.read(layout), int8=int8)
        try:
            workspace.cache()
            with workspace.atomic(path, "wb") as file:
                file.write(content)
        except LlmbenchError:
            return content
    return path


def _onnx(model: Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Where the CPU has no VNNI, sums of two products overflow 16 bits; this takes the kernels that do not.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(
        str(model) if isinstance(model, Path) else model, options, providers=["CPUExecutionProvider"]
    )

    def run(ids: Any, lengths: Any) -> Any:
        return session.run(["hidden"], {"ids": ids, "lengths": lengths})[0]

    return run


def _openvino(model: Path | bytes) -> Any:
    import threading

    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
    compiled = core.compile_model(core.read_model(str(model) if isinstance(model, Path) else model), "CPU", settings)
    local = threading.local()

    def run(ids: Any, lengths: Any) -> Any:
        if not hasattr(local, "request"):
            local.request = compiled.create_infer_request()
        return local.request.infer({"ids": ids, "lengths": lengths})["hidden"]

    return run
