"""Asks llama.cpp in a process of its own, and quantises with its own program."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from llmbench.errors import LlmbenchError
from llmbench.exporting.values import Heard, Probes, ProbeText

__all__ = ["NAMES", "ask", "pre_tokenizer", "quantise"]

NAMES = (
    "llama-bpe", "qwen2", "gpt-2", "smollm", "gpt-4o", "tekken", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
    "falcon3", "mpt", "olmo", "starcoder", "refact", "command-r", "stablelm2", "dbrx", "smaug-bpe", "chatglm-bpe", "glm4",
    "viking", "exaone", "exaone4", "minerva-7b", "chameleon", "bloom", "gpt3-finnish", "superbpe", "seed-coder", "kimi-k2",
    "llama4", "pixtral", "hunyuan", "trillion", "bailingmoe", "qwen35", "lfm2", "grok-2", "poro-chat", "codeshell", "jais",
)  # fmt: skip
"""llama.cpp knows a pre-tokenizer, the rule that cuts a text before its pairs are merged, by the name of a model alone."""
_SECONDS = 3600


def ask(model: Path, probes: Probes, *, adapter: Path | None = None) -> tuple[Heard, frozenset[int]]:
    """What llama.cpp reads out of a file, and all tokens at which it stops. Of `Heard`, template and tied are left open.

    Raises:
        LlmbenchError: it cannot load or compute it.
    """
    with tempfile.TemporaryDirectory(prefix="llmbench-llama-") as place:
        job = {
            "model": str(model), "adapter": str(adapter) if adapter is not None else None,
            "sequences": probes.sequences, "prompts": probes.prompts, "new_tokens": probes.new_tokens,
            "texts": _texts(probes.texts),
        }  # fmt: skip
        found = _run(job, Path(place))
        logits = [np.load(Path(place) / f"logits-{i}.npy", allow_pickle=False) for i in range(len(probes.sequences))]
    ends = frozenset(found["ends"])
    return Heard(logits, found["greedy"], found["tokens"], ends, None, None), ends


def pre_tokenizer(vocabulary: Path, texts: tuple[ProbeText, ...]) -> str:
    """llama.cpp's name of the pre-tokenizer that reads the texts as the model's own tokenizer does.

    Args:
        vocabulary: a GGUF file without weights.
        texts: with the ids that are wanted.

    Raises:
        LlmbenchError: it has none.
    """
    with tempfile.TemporaryDirectory(prefix="llmbench-llama-") as place:
        found = _run({"model": str(vocabulary), "names": NAMES, "texts": _texts(texts)}, Path(place))
    name: str | None = found["name"]
    if name is None:
        raise LlmbenchError(
            "llama.cpp has no pre-tokenizer that cuts texts as this model's does: the nearest, "
            f"{found['nearest']}, reads {found['same']} of {len(texts)} texts alike. Use --format merged"
        )
    return name


def quantise(source: Path, target: Path, kind: str) -> None:
    """Has llama.cpp's own program round a GGUF file.

    Raises:
        LlmbenchError: it refuses.
    """
    found = find_spec("ik_llama_cpp")
    assert found is not None and found.origin is not None
    program = Path(found.origin).parent / "bin" / "llama-quantize"
    done = subprocess.run(
        [str(program), str(source), str(target), kind], capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    if done.returncode != 0 or not target.is_file():
        raise LlmbenchError(f"llama-quantize {kind} failed ({_last(done.stderr or done.stdout)})")


def _texts(texts: tuple[ProbeText, ...]) -> list[dict[str, Any]]:
    return [{"text": one.text, "begins": one.begins, "ids": list(one.ids)} for one in texts]


def _run(job: dict[str, Any], place: Path) -> dict[str, Any]:
    path = place / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    # -P: else a random.py in the folder where the user works would be imported in place of Python's own
    command = [sys.executable, "-P", "-m", "llmbench.exporting.llama.child", str(path), str(place)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace")
    if done.returncode != 0 or not (place / "answer.json").is_file():
        raise LlmbenchError(f"llama.cpp could not read it ({_last(done.stderr)})")
    found: dict[str, Any] = json.loads((place / "answer.json").read_text(encoding="utf-8"))
    return found


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it said nothing"
