"""torch.compile for the layers of a model: one graph for all of them and for every length, compiled once.

A whole model compiled for fixed shapes costs a CPU half a minute for each length that occurs. Its layers are alike, so one of
them compiled for lengths that vary serves all; attention to rows end to end stays as it is and divides the graph in two.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.modeling_layers import GradientCheckpointingLayer

from llmbench.borrowed import replaced
from llmbench.errors import LlmbenchError
from llmbench.estimate import Estimate
from llmbench.recipe import TrainRecipe
from llmbench.training.kernels import packed_attention, patches

__all__ = ["compiling", "install", "obstacle", "payback"]

_SECONDS, _GAIN = 30.0, 0.06
"""What compiling takes on two cores, and the share of a step's time that it then saves: benchmarks/train_speed.py."""
_GRAPHS = 64
"""Graphs of one layer at most: full training, evaluation and the last, shorter batch each have their own."""


def install(model: Any) -> None:
    """Compiles each layer at its first call, which is to come inside `compiling`."""
    packed_attention.leave_uncompiled()
    for layer in _layers(model):
        layer.compile(dynamic=True)


@contextmanager
def compiling() -> Iterator[None]:
    """Gives the compiler room for every graph, and makes one line of what it cannot do with a model; the first step says so.

    Raises:
        LlmbenchError: the compiler failed.
    """
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    try:
        with replaced({patches.COMPILATIONS: _GRAPHS}):
            yield
    except (TorchDynamoException, InductorError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise LlmbenchError(
            f"training.torch_compile: this model's layers cannot be compiled ({said}). Set training.torch_compile=false."
        ) from error


def obstacle(model: Any, device: str) -> str | None:
    """Why a model cannot be compiled so, or None."""
    if device == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++")):
        return "there is no C++ compiler (g++) here"
    return None if _layers(model) else "the model does not mark its layers"


def payback(recipe: TrainRecipe, needed: Estimate | None, device: str) -> tuple[bool, str]:
    """Whether compiling pays back within the run, at least twice over, and why."""
    if device != "cpu":
        return False, "its gain on this device has not been measured; set it to true to try it"
    if recipe.quantization is not None:
        return False, "the matrix products of a quantised base cannot be compiled"
    if needed is None:
        return False, "the length of the run is unknown"
    saved = needed.uncorrected_seconds * _GAIN
    said = f"saves about {saved:.0f} s, costs about {_SECONDS:.0f} s"
    return saved >= 2 * _SECONDS, said


def _layers(model: Any) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
