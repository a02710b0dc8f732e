"""Which backend computes the vectors here, and whether they hold.

`candidates` looks at the hardware and at what is installed, not at a clock, so that the same machine always gives the same
answer; benchmarks/embedding_backends.py measures which is faster. int8 is never taken by itself: on judged questions it moved
nDCG@10 by more than 0.002. `check` compares a backend's
vectors of the canary texts with those of sentence_transformers in float32, once for each model.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from llmbench import hardware, workspace
from llmbench.errors import LlmbenchError
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import canaries
from llmbench.retrieval.embedding.contract import Contract
from llmbench.retrieval.embedding.light import Backend, Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BOUND", "Choice", "candidates", "check", "device"]

BOUND = {"float32": 0.9999, "bfloat16": 0.999, "float16": 0.999, "int8": 0.97}
"""The least cosine to float32 of a canary's vector with which a precision is used."""

MEASURED = "0b40d68aaba88031619478e4aa310c939095b6ab5d4e584611d30752d206543c"
"""The fingerprint of the packaged all-MiniLM-L6-v2, whose vectors were compared beforehand (docs/benchmarks.md, `Embedding
backends`): the plain encoder's are sentence_transformers' to 1e-6, bfloat16's lie within 2e-4 and int8's within 2e-2."""

_DEVICES = ("nvidiactl", "dxg", "kfd", "dri")
"""Device files of NVIDIA's driver, of it under Windows' Linux, of AMD's, and of Intel's."""


@dataclass(frozen=True)
class Choice:
    """What computes: `light` is this package's own encoder, else sentence_transformers."""

    backend: Backend
    precision: str
    light: bool
    device: str


def candidates(
    spec: EmbedderSpec, layout: Layout, *, device: str, precision: str | None, like: Contract | None, queries: bool
) -> list[Choice]:
    """What may compute this model here, best first; one that the recipe names is the only one.

    Args:
        spec: the recipe's section.
        layout: the model.
        device: as `device` found it.
        precision: what the caller asks for, over the recipe's.
        like: the contract that the vectors must keep.
        queries: whether single short texts are all that comes, for which starting fast counts for more than throughput.

    Raises:
        LlmbenchError: backend, precision, model and device do not go together.
    """
    wanted = precision or (None if spec.precision == "auto" else spec.precision)
    backend: str = spec.backend
    if like is not None and like.precision == "int8" and wanted is None:
        wanted, backend = "int8", like.backend if backend == "auto" else backend
    if backend == "auto" and wanted == "int8":
        backend = "onnx"
    _refuse(spec, layout, backend, wanted, device)
    light = layout.light is None
    native = _native(device)
    torch = [Choice("torch", wanted or native, light, device)]
    if light:
        torch.append(Choice("torch", wanted or native, False, device))
    if wanted is None and native != "float32":
        torch += [Choice("torch", "float32", own, device) for own in (True, False) if light or not own]
    match backend:
        case "onnx" | "openvino":
            return [Choice("onnx" if backend == "onnx" else "openvino", wanted or "float32", True, "cpu")]
        case "torch":
            return torch
    onnx = [Choice("onnx", "float32", True, "cpu")] if light and wanted in (None, "float32") and _has_onnx() else []
    if device != "cpu":
        return torch
    return onnx + torch if native == "float32" or queries else torch[:1] + onnx + torch[1:]


def _refuse(spec: EmbedderSpec, layout: Layout, backend: str, precision: str | None, device: str) -> None:
    """Refuses what does not go together."""
    name = spec.model_name_or_path
    if backend in ("onnx", "openvino"):
        if layout.light is not None:
            raise LlmbenchError(f"embedder {name}: backend {backend} is for plain encoders, and {layout.light}. Use torch.")
        if precision not in (None, "float32", "int8"):
            raise LlmbenchError(
                f"embedder {name}: backend {backend} computes in float32 or int8, not in {precision}. Use torch."
            )
    elif precision == "int8":
        raise LlmbenchError(f"embedder {name}: backend {backend} does not compute in int8. Use backend: onnx.")
    if precision == "float16" and device == "cpu":
        raise LlmbenchError(f"embedder {name}: float16 needs a GPU. Use precision: auto.")


def device(gpu: bool) -> str:
    """`cuda`, `mps`, `xpu` or `cpu`. Where Linux has no device file of a GPU, torch is not loaded to ask."""
    if not gpu or (sys.platform == "linux" and not any(Path("/dev", name).exists() for name in _DEVICES)):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    return "xpu" if hasattr(torch, "xpu") and torch.xpu.is_available() else "cpu"


def _native(device: str) -> str:
    """The fastest precision of a device at the quality of float32.

    On an EPYC with AVX512-BF16 all-MiniLM-L6-v2 takes .54 of ONNX Runtime's float32 time and .24 of sentence_transformers',
    with nDCG@10 on SciFact's 809 training queries .6592 to .6602, on seven sets .0002 more on average, and no cosine under
    .9998; on a Xeon with AVX512-BF16 and no AMX it takes 1.6 times float32's; elsewhere the CPU emulates it and is slower.
    """
    match device:
        case "cuda":
            import torch

            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
        case "cpu":
            return "bfloat16" if hardware.bfloat16_pays() else "float32"
    return "float32"


def _has_onnx() -> bool:
    return find_spec("onnxruntime") is not None and find_spec("onnx") is not None


def check(
    choice: Choice,
    fingerprint: str,
    vectors: Callable[[], NDArray[np.float32]],
    reference: Callable[[], NDArray[np.float32]],
) -> float:
    """The least cosine between a choice's vectors of the canary texts and the reference's; 1 where none is needed.

    Computed at the first use of a model, since the reference takes seconds to load, and kept in the workspace's cache where
    that can be written.
    """
    if choice.precision == "float32" and not choice.light:
        return 1.0  # it is the reference
    if fingerprint == MEASURED and choice.light:
        return 1.0
    key = f"{choice.backend} {choice.precision} {'light' if choice.light else 'general'} {choice.device}"
    path = workspace.cached("embedders", fingerprint[:32], "cosines.json")
    known = _kept(path)
    if key not in known:
        known[key] = 1 - canaries.distance(vectors(), reference())
        with suppress(LlmbenchError):
            workspace.cache()
            workspace.write_json(path, known)
    return known[key]


def _kept(path: Path) -> dict[str, float]:
    try:
        return {str(key): float(value) for key, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
