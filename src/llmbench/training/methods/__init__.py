"""One module for each method (sft, dpo, ...), and the trainers' common parts. A recipe's method is matched here alone."""

from __future__ import annotations

from llmbench.recipe import Method as Name
from llmbench.training.methods.method import Method

__all__ = ["Method", "of"]


def of(name: Name) -> Method:
    """The method of this name; the libraries of no other are loaded."""
    match name:
        case "sft" | "pretrain":
            from llmbench.training.methods import sft

            return sft.METHOD
        case "dpo":
            from llmbench.training.methods import dpo

            return dpo.METHOD
        case "orpo":
            from llmbench.training.methods import orpo

            return orpo.METHOD
        case "kto":
            from llmbench.training.methods import kto

            return kto.METHOD
        case "reward":
            from llmbench.training.methods import reward

            return reward.METHOD
        case "grpo":
            from llmbench.training.methods import grpo

            return grpo.METHOD
        case "distillation":
            from llmbench.training.methods import distillation

            return distillation.METHOD
