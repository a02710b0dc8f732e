"""Text to vectors: any sentence-transformers model, by the fastest way that this machine has and whose vectors are as good.

locate       where a model lies: the installed package, a folder, the hub
layout       what its files say: window, pooling, prompts, architecture
fingerprint  what its files are, hashed once
tokens       texts to token numbers, in a thread ahead of the computing
batches      texts of like length together, filled by tokens
weights      the safetensors of a BERT-like encoder, by what they do
graph        that encoder as an ONNX graph, float32 or int8
runtime      ONNX Runtime and OpenVINO
bert         that encoder in PyTorch: bfloat16, GPUs
general      every other model, by sentence_transformers itself
probe        which of them, and whether its vectors hold
canaries     fixed texts whose vectors tell whether two embedders are one
contract     what an index's vectors depend on
embedder     Embedder, which is all that others see
"""

from __future__ import annotations

from llmbench.retrieval.embedding.contract import Contract
from llmbench.retrieval.embedding.embedder import Dtype, Embedder, Embeds
from llmbench.retrieval.embedding.locate import locate
from llmbench.retrieval.embedding.tokens import Reading

__all__ = ["Contract", "Dtype", "Embedder", "Embeds", "Reading", "locate"]
