"""GRPO with answers that vLLM draws: an engine of the training's own, which gets each step's adapter and is asked over HTTP.

Neither the trainer nor this program imports vLLM: it is the process that `llmbench serve` starts too, on a socket that only
this user reaches, and may be of another interpreter.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from llmbench import engine, recipe
from llmbench.errors import EngineError

if TYPE_CHECKING:
    from llmbench.training import Drawing, Drawn, Job

__all__ = ["EngineSampler", "drawing"]

_SECONDS = 1800.0
_SLOTS = 3
"""Adapters that fit: that of a step, that of the next one, and on a CPU one that stays empty (see engine/command.py)."""


@contextmanager
def drawing(job: Job) -> Iterator[Job]:
    """A job with what draws its answers while the block runs; one that needs nothing of that kind is given as it is.

    Raises:
        MissingPackage, EngineError: there is no vLLM, or it does not start.
    """
    spec = job.recipe.grpo
    if spec is None or spec.generator != "vllm":
        yield job
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EngineError("grpo.generator: vllm serves a training of one process; use generator: transformers in several")
    document = _document(job)
    with _named(), engine.Engine(document, {}) as one:
        place = one.socket.parent / "drawn"  # in the engine's own folder, which goes with it, however this program ends
        place.mkdir()
        began = time.monotonic()
        print("Starting vLLM, which draws the answers", file=sys.stderr)
        one.wait()
        print(f"vLLM answers after {time.monotonic() - began:.0f} s", file=sys.stderr)
        yield replace(job, sampler=EngineSampler(one, place))


@contextmanager
def _named() -> Iterator[None]:
    """Calls the interpreter what the training's recipe calls it.

    Raises:
        EngineError: what was raised inside.
    """
    try:
        yield
    except EngineError as error:
        raise type(error)(str(error).replace("engine.python", "grpo.vllm_python")) from error


class EngineSampler:
    """Answers of a running engine. See `training.Drawing`."""

    def __init__(self, one: engine.Engine, place: Path) -> None:
        self._engine, self.place = one, place
        self._number = 0
        self._now: engine.Adapter | None = None

    def load(self, adapter: Path) -> None:
        """Loads an adapter under a name of its own, then unloads the one before.

        Raises:
            EngineError: vLLM does not take it.
        """
        self._engine.check("drawing answers")
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
        self._number += 1
        # vLLM keeps what it computed by the name of an adapter, so no two steps share one
        now = engine.Adapter(f"step-{self._number}", f"of round {self._number}", adapter, rank)
        self._engine.load(now)
        if self._now is not None:
            with suppress(EngineError):  # its slot is then missing, which the next load says
                self._engine.unload(self._now.id)
        self._now = now

    def draw(self, prompts: Sequence[list[int]], how: Drawing) -> list[Drawn]:
        """`how.count` answers for each prompt, those of a prompt behind one another.

        Raises:
            EngineError: vLLM ended, or refuses the request.
        """
        from llmbench.training import Drawn

        assert self._now is not None
        body = {
            "model": self._now.id, "prompt": list(prompts), "n": how.count, "max_tokens": how.most, "seed": how.seed,
            "stop_token_ids": list(how.stops), "logprobs": 0, "return_token_ids": True, "add_special_tokens": False,
            **{name: value for name, value in how.settings.items() if not (name == "top_k" and value == 0)},
        }  # fmt: skip
        choices = sorted(self._asked(body), key=lambda choice: int(choice["index"]))
        return [Drawn(list(one["token_ids"]), [float(p) for p in one["logprobs"]["token_logprobs"]]) for one in choices]

    def _asked(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            with engine.client(self._engine.at, _SECONDS) as http:
                response = http.post("/v1/completions", json=body)
            if response.is_success:
                found: list[dict[str, Any]] = response.json()["choices"]
                return found
            said = " ".join(response.text.split())[:300]
        except (httpx.HTTPError, ValueError, KeyError) as error:
            self._engine.check("drawing answers")
            said = f"{type(error).__name__}: {error}"
        raise EngineError(f"vLLM draws no answers ({said}). Its log: {self._engine.log}")


def _document(job: Job) -> recipe.ServeRecipe:
    """What is served: the base that is trained on, with room for the adapters of two steps.

    Log-probabilities are those after temperature and the like, by which the trainer weighs what was drawn.
    """
    spec = job.recipe
    assert spec.grpo is not None
    assert spec.lora is not None
    model: dict[str, Any] = {"model_name_or_path": spec.model.model_name_or_path, "revision": spec.model.revision}
    model |= {"trust_remote_code": spec.model.trust_remote_code, "device": spec.model.device}
    document = {
        "model": {name: value for name, value in model.items() if value is not None},
        "variants": [{"name": "base"}],
        "engine": {
            "dtype": str(job.loaded.dtype).removeprefix("torch."), "max_adapters": _SLOTS, "max_loras": 2,
            "max_lora_rank": max([spec.lora.r, *spec.lora.rank_pattern.values()]),
            "gpu_memory_utilization": spec.grpo.vllm_gpu_memory_utilization,
            "extra_args": ["--logprobs-mode", "processed_logprobs"],
            **({"python": str(spec.grpo.vllm_python)} if spec.grpo.vllm_python is not None else {}),
            **({"max_model_len": spec.grpo.vllm_max_model_length} if spec.grpo.vllm_max_model_length is not None else {}),
        },
    }  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="llmbench-") as folder:
        path = Path(folder) / "serve.yaml"
        path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
        return recipe.load(path, recipe.ServeRecipe, [])
