"""The command line of vLLM's API server, from the serving document. Pure: nothing is started, looked up or written."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbench import assets
from llmbench.engine.address import Address, Place
from llmbench.engine.admission import Adapter
from llmbench.engine.interpreter import Device
from llmbench.engine.parsers import Parsers
from llmbench.errors import EngineError
from llmbench.recipe import ServeRecipe, vllm_option
from llmbench.recipe.servability import MAX_RANK

__all__ = ["BASE", "MAX_RANK", "Capacity", "by_priority", "capacity", "command", "onnx_command", "places"]

BASE = "base"
"""What the base model is called inside the engine; adapters are called by their hash. Clients see variants only."""

_POLICY = "--scheduling-policy"
_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, MAX_RANK)
_PLACES: dict[Device, int] = {"cpu": 128, "cuda": 1024}
"""Most that vLLM computes at once where nothing is said: 256 on smaller GPUs."""
_LAUNCH = Path(__file__).with_name("launch.py")
_SPARE = 4
"""Adapters that can be added to a server whose document does not say how many."""
_USUAL_RANK = 16
"""The default of `lora.r`."""


@dataclass(frozen=True)
class Capacity:
    """What vLLM is started with room for, which cannot grow while it runs: this many adapters of at most this rank."""

    adapters: int
    rank: int


def capacity(recipe: ServeRecipe, adapters: Mapping[str, Adapter]) -> Capacity:
    """The room that a serving document asks for, which is at least what its own adapters need.

    Raises:
        EngineError: it sets a limit that its own adapters exceed, or an adapter's rank is more than vLLM takes.
    """
    engine, distinct = recipe.engine, {adapter.id: adapter for adapter in adapters.values()}
    most = engine.max_adapters if engine.max_adapters is not None else len(distinct) + _SPARE if distinct else 0
    if len(distinct) > most:
        raise EngineError(f"{recipe.source}: engine.max_adapters is {most}, but the variants name {len(distinct)} adapters")
    highest = max((adapter.rank for adapter in distinct.values()), default=0)
    rank = engine.max_lora_rank or highest or _USUAL_RANK
    if highest > rank:
        raise EngineError(f"{recipe.source}: engine.max_lora_rank is {rank}, but an adapter has rank {highest}")
    return Capacity(most, _allowed_rank(rank))


def places(recipe: ServeRecipe, device: Device) -> int:
    """Answers that vLLM computes at once: what the document says, or else at least what this vLLM does by itself."""
    given = vllm_option(recipe.engine.extra_args, "--max-num-seqs")
    if given is not None and given.isdecimal():
        return max(1, int(given)) * recipe.engine.data_parallel_size
    return (recipe.engine.max_num_seqs or _PLACES[device]) * recipe.engine.data_parallel_size


def command(
    recipe: ServeRecipe,
    adapters: Mapping[str, Adapter],
    at: Place,
    *,
    python: Path,
    device: Device,
    room: Capacity | None = None,
    parsers: Parsers | None = None,
) -> list[str]:
    """The arguments of the process that serves the base and the adapters.

    Args:
        recipe: the serving document.
        adapters: what the variants name -> the admitted adapter; an adapter that two names share is registered once.
        at: where the API will listen. Its key is not among the arguments, which others can read.
        python: the interpreter that has vLLM.
        device: what that vLLM computes on.
        room: for the adapters of now and later; None is what the document asks for.
        parsers: what finds tool calls and reasoning in answers; None is nothing.

    Raises:
        EngineError: as `capacity`.
    """
    model, engine = recipe.model, recipe.engine
    argv = [str(python), str(_LAUNCH), "--model", assets.model_folder(model.model_name_or_path)]
    argv += ["--served-model-name", BASE, *_listening(at)]
    if model.revision is not None:
        argv += ["--revision", model.revision]
    if model.tokenizer is not None:
        argv += ["--tokenizer", str(model.tokenizer)]
    if model.trust_remote_code:
        argv += ["--trust-remote-code"]
    argv += ["--dtype", engine.dtype if engine.dtype != "auto" else model.dtype]
    if engine.max_model_len is not None:
        argv += ["--max-model-len", str(engine.max_model_len)]
    for field in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
        if (count := getattr(engine, field)) > 1:
            argv += [f"--{field.replace('_', '-')}", str(count)]
    if engine.max_num_seqs is not None:
        argv += ["--max-num-seqs", str(engine.max_num_seqs)]
    match device:
        case "cpu":
            # LoRA turns torch.compile off on CPU anyway; without LoRA it costs 27 s and more at each start.
            argv += ["--kv-cache-memory-bytes", str(int(engine.cpu_kv_cache_gib * 2**30)), "--enforce-eager"]
        case "cuda":
            argv += ["--gpu-memory-utilization", str(engine.gpu_memory_utilization)]
    # A model's generation_config.json may hold a repetition penalty or top_k that nobody asked for.
    argv += ["--generation-config", "vllm"]
    argv += ["--disable-uvicorn-access-log", "--disable-fastapi-docs"]
    if vllm_option(engine.extra_args, "--structured-outputs-config") is None:
        # With free white space many models write newlines until max_tokens (vllm-project/vllm#38696).
        argv += ["--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}']
    if by_priority(recipe) and vllm_option(engine.extra_args, _POLICY) is None:
        argv += ["--scheduling-policy", "priority"]
    argv += _lora_arguments(adapters, room or capacity(recipe, adapters), engine.max_loras, device)
    argv += parsers.arguments() if parsers is not None else []
    return argv + list(engine.extra_args)


def onnx_command(recipe: ServeRecipe, at: Place) -> list[str]:
    """The arguments of the process that serves a model in ONNX (`engine.backend: onnx`). `at` as for `command`."""
    # -P: else a random.py in the folder where the user works would be imported in place of Python's own
    argv = [sys.executable, "-P", "-m", "llmbench.engine.onnx"]
    argv += ["--model", assets.model_folder(recipe.model.model_name_or_path), "--served-model-name", BASE, *_at(at)]
    if recipe.engine.max_model_len is not None:
        argv += ["--max-model-len", str(recipe.engine.max_model_len)]
    return argv


def _listening(at: Place) -> list[str]:
    return [*_at(at), "--middleware", "key_guard.KeyGuard"] if isinstance(at, Address) else _at(at)


def _at(at: Place) -> list[str]:
    return ["--host", at.host, "--port", str(at.port)] if isinstance(at, Address) else ["--uds", str(at)]


def by_priority(recipe: ServeRecipe) -> bool:
    """Whether requests have a priority, so that shadows wait for all others: where a route has one, unless the owner chose."""
    chosen = vllm_option(recipe.engine.extra_args, _POLICY)
    return chosen == "priority" if chosen is not None else any(route.shadow is not None for route in recipe.routes)


def _lora_arguments(adapters: Mapping[str, Adapter], room: Capacity, max_loras: int, device: Device) -> list[str]:
    """Rank, slots and modules. All adapters stay in memory, so that none is read from disk again while serving.

    On CPU there is a slot more than adapters, and it stays empty: rows of the base model in a batch with rows of an adapter
    are given the *last* slot's adapter there (https://github.com/vllm-project/vllm/pull/48421), so an empty one must be last.
    """
    if room.adapters == 0:
        return []
    slots = min(max_loras, room.adapters) if device == "cuda" else room.adapters + 1
    argv = ["--enable-lora", "--max-lora-rank", str(room.rank)]
    argv += ["--max-loras", str(slots), "--max-cpu-loras", str(max(slots, room.adapters))]
    modules = {adapter.id: f"{adapter.id}={adapter.folder}" for adapter in adapters.values()}
    return [*argv, "--lora-modules", *modules.values()] if modules else argv


def _allowed_rank(rank: int) -> int:
    """The smallest rank of vLLM's list that an adapter of this rank fits in."""
    for allowed in _RANKS:
        if rank <= allowed:
            return allowed
    raise EngineError(f"an adapter of rank {rank} cannot be served: vLLM takes at most {MAX_RANK}. Train with a smaller lora.r")
