"""A BERT-like encoder as an ONNX graph, written straight from its weights: no export through PyTorch, no Python of the model.

The operators are those that ONNX Runtime fuses encoders into (its documentation, `ContribOperators.md`): one for the sum of
embeddings and its norm, one for all of attention, one for a bias and GELU, one for a residual and its norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbench.errors import LlmbenchError, MissingPackage
from llmbench.retrieval.embedding.light.weights import Affine, Layer, Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["VERSION", "write"]

VERSION = 1
"""Changes with the graph, so that one kept from an earlier version is not used."""
_OPSET, _IR = 17, 8
_LARGEST = 2_000_000_000
"""A protocol buffer holds no more bytes."""
_CONTRIB = "com.microsoft"


def write(weights: Weights, *, int8: bool = False) -> bytes:
    """The model file: ids (rows, length) int32 and lengths (rows,) int32 -> hidden (rows, length, width) float32.

    Args:
        weights: the encoder's.
        int8: the linear maps in eight bits: weights symmetric with a scale for each output, their inputs with a scale that is
            found while computing, over all rows of a call. So that a vector depends on its own text alone, give such a graph
            one row at a time.

    Raises:
        LlmbenchError: it is too large for the format.
        MissingPackage: onnx is not installed.
    """
    if weights.words.nbytes + sum(12 * layer.up.weight.nbytes // 4 for layer in weights.layers) > _LARGEST:
        raise LlmbenchError("backend: onnx holds encoders of up to 2 GB, and this one is larger. Use backend: torch.")
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise MissingPackage("index", "onnx", "rag") from error
    graph = _Graph(weights, int8)
    graph.body()
    made = helper.make_graph(
        graph.nodes,
        "encoder",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT32, ["rows", "length"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["rows"]),
        ],
        [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["rows", "length", weights.words.shape[1]])],
        graph.constants,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_CONTRIB, 1)]
    return bytes(helper.make_model(made, opset_imports=opsets, ir_version=_IR).SerializeToString())


class _Graph:
    """The nodes and constants, as they are added from the first layer to the last."""

    def __init__(self, weights: Weights, int8: bool) -> None:
        self.weights, self.int8 = weights, int8
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def body(self) -> None:
        """Embeddings, then the layers."""
        w = self.weights
        inputs = ["ids", "", self.constant(w.words), self.constant(w.positions), "", *self.affine(w.norm)]
        x = self.node("EmbedLayerNormalization", inputs, outputs=["embedded", "unused"], epsilon=w.epsilon)
        for layer in w.layers:
            x = self.layer(x, layer)
        self.nodes[-1].output[0] = "hidden"

    def layer(self, x: str, layer: Layer) -> str:
        """One layer: x -> its output."""
        heads = self.weights.heads
        if self.int8:
            parts = [f"part{len(self.nodes)}{name}" for name in "qkv"]
            self.node("Split", [self.linear(x, layer.qkv)], outputs=parts, contrib=False, axis=2)
            attended = self.node("MultiHeadAttention", parts, num_heads=heads)
        else:
            inputs = [x, self.constant(layer.qkv.weight.T), self.constant(layer.qkv.bias), "lengths"]
            attended = self.node("Attention", inputs, num_heads=heads)
        x = self.add_norm(x, attended, layer.out, layer.norm)
        return self.add_norm(x, self.activated(x, layer.up), layer.down, layer.last_norm)

    def activated(self, x: str, up: Affine) -> str:
        """The activation of a linear map."""
        match self.weights.activation:
            case "gelu" if self.int8:
                return self.node("Gelu", [self.linear(x, up)])
            case "gelu":
                return self.node("BiasGelu", [self.product(x, up), self.constant(up.bias)])
            case "relu":
                return self.node("Relu", [self.linear(x, up)], contrib=False)
            case _:  # the approximation by tanh
                return self.node("FastGelu", [self.linear(x, up)])

    def add_norm(self, x: str, inner: str, linear: Affine, norm: Affine) -> str:
        """norm(x + linear(inner)), the linear map's bias added by the same operator."""
        last = [] if self.int8 else [self.constant(linear.bias)]
        made = self.linear(inner, linear) if self.int8 else self.product(inner, linear)
        return self.node("SkipLayerNormalization", [x, made, *self.affine(norm), *last], epsilon=self.weights.epsilon)

    def linear(self, x: str, part: Affine) -> str:
        """x W^T + b."""
        if not self.int8:
            return self.node("Add", [self.product(x, part), self.constant(part.bias)], contrib=False)
        import numpy as np

        columns = part.weight.T
        scale = np.maximum(np.abs(columns).max(axis=0) / 127, np.finfo(np.float32).tiny).astype(np.float32)
        whole = np.clip(np.rint(columns / scale), -127, 127).astype(np.int8)
        inputs = [x, self.constant(whole), self.constant(scale), self.constant(np.zeros(len(scale), np.int8))]
        return self.node("DynamicQuantizeMatMul", [*inputs, self.constant(part.bias)])

    def product(self, x: str, part: Affine) -> str:
        """x W^T in float32."""
        return self.node("MatMul", [x, self.constant(part.weight.T)], contrib=False)

    def affine(self, part: Affine) -> list[str]:
        """Weight and bias as constants."""
        return [self.constant(part.weight), self.constant(part.bias)]

    def constant(self, array: NDArray[Any]) -> str:
        """A constant's name."""
        import numpy as np
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(
        self, operator: str, inputs: list[str], outputs: list[str] | None = None, contrib: bool = True, **attributes: Any
    ) -> str:
        """Adds a node; the name of its first output."""
        from onnx import helper

        names = outputs or [f"node{len(self.nodes)}"]
        self.nodes.append(helper.make_node(operator, inputs, names, domain=_CONTRIB if contrib else "", **attributes))
        return names[0]
