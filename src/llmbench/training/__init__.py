"""Training: one recipe in, one run folder with an adapter (or a model) out."""

from llmbench.training.sft import Job, prepare, train

__all__ = ["Job", "prepare", "train"]
