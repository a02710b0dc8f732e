"""Plain encoders, computed by this package itself: sentence_transformers takes 6 seconds to import and is slower on a CPU.

layout   what a model's files say: window, pooling, prompts, architecture
batches  texts of like length together, filled by tokens
weights  the safetensors of a BERT-like encoder, by what they do
graph    that encoder as an ONNX graph, float32 or int8
runtime  ONNX Runtime and OpenVINO
bert     that encoder in PyTorch: bfloat16, GPUs
onednn   its layers on a CPU in bfloat16
pooling  one vector from those of a text's tokens
encoder  which of the two computes
patches  what is borrowed from inside PyTorch
"""

from __future__ import annotations

from llmbench.retrieval.embedding.light import batches, layout, patches
from llmbench.retrieval.embedding.light.encoder import Backend, Light, load
from llmbench.retrieval.embedding.light.layout import Layout

__all__ = ["Backend", "Layout", "Light", "batches", "layout", "load", "patches"]
