"""A plain encoder, opened by the backend that was chosen for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

from llmbench.errors import MissingPackage
from llmbench.retrieval.embedding.light.layout import Layout

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Backend", "Light", "load"]

Backend = Literal["torch", "onnx", "openvino"]


class Light(Protocol):
    """A plain encoder, of `runtime` or `bert`: token numbers of some texts -> (rows, width)."""

    workers: int
    budget: int

    def enter(self) -> None:
        """Readies a thread of its own, one of `workers`, to encode."""
        ...

    def encode(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Pooled vectors, before any norm."""
        ...


def load(layout: Layout, fingerprint: str, *, backend: Backend, precision: str, device: str) -> Light:
    """Loads what computes; only that backend's packages are imported.

    Raises:
        MissingPackage: one of them is not installed.
        LlmbenchError: the weights are not what config.json says, or the runtime refuses the graph.
    """
    try:
        if backend == "torch":
            from llmbench.retrieval.embedding.light.bert import Encoder

            return Encoder(layout, device, precision)
        from llmbench.retrieval.embedding.light.runtime import Graph

        return Graph(layout, fingerprint, backend, int8=precision == "int8")
    except ImportError as error:
        raise MissingPackage("index", error.name or backend, "rag") from error
