"""Text to vectors: any sentence-transformers model, by the fastest way that this machine has and whose vectors are as good.

locate       where a model lies: the installed package, a folder, the hub
light        plain encoders, computed by this package itself
fingerprint  what its files are, hashed once
tokens       texts to token numbers, in a thread ahead of the computing
general      every other model, by sentence_transformers itself
probe        which of them, and whether its vectors hold
canaries     fixed texts whose vectors tell whether two embedders are one
contract     what an index's vectors depend on
embedder     Embedder, which is nearly all that others see
together     the queries of several threads as batches
"""

from __future__ import annotations

from llmbench.retrieval.embedding.contract import Contract
from llmbench.retrieval.embedding.embedder import Dtype, Embedder, Embeds
from llmbench.retrieval.embedding.locate import PACKAGED, locate
from llmbench.retrieval.embedding.together import Together
from llmbench.retrieval.embedding.tokens import Reading

__all__ = ["PACKAGED", "Contract", "Dtype", "Embedder", "Embeds", "Reading", "Together", "locate"]
