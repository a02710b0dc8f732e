"""Unloading an adapter in vLLM frees its slot and its memory, which vLLM's own `/v1/unload_lora_adapter` does not.

That one forgets the name alone: the matrices stay in their slot until others push them out, so that after some loading
and unloading every slot is taken. On a CPU the last one must stay empty (see command.py).

A file of its own for the interpreter that has vLLM, which may have no llmbench: `launch.py` runs it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from typing import Any

MODULE, KIND = "vllm.entrypoints.openai.models.serving", "OpenAIServingModels"
RECORDED = {"unload_lora_adapter": "(self, request)"}
"""The method of vLLM 0.32 that is replaced; it is a row of `patches.py` too."""
FREED = "Its memory is free."
"""What an answer to an unloading ends with when the slot was freed; `process.py` counts by it."""


def install() -> bool:
    """Replaces the method for as long as the process of the server lives.

    Where it is not what was recorded it is left alone, one line on stderr says so, and False comes back.
    """
    try:
        models = getattr(importlib.import_module("vllm.entrypoints.openai.models.serving"), KIND)
        original = models.unload_lora_adapter
        known = f"({', '.join(inspect.signature(original).parameters)})" == RECORDED["unload_lora_adapter"]
    except (ImportError, AttributeError):
        known = False
    if not known:
        print(f"vLLM's {KIND}.unload_lora_adapter is not as recorded: unloaded adapters keep their slots.", file=sys.stderr)
        return False

    async def unload_lora_adapter(self: Any, request: Any) -> Any:
        adapter = self.lora_requests.get(request.lora_name)
        answer = await original(self, request)
        if adapter is None or not isinstance(answer, str):
            return answer
        await self.engine_client.remove_lora(adapter.lora_int_id)
        return f"{answer} {FREED}"

    models.unload_lora_adapter = unload_lora_adapter
    return True
