"""Quantises a model's folder with llm-compressor, and asks folders what they say. Runs in llm-compressor's own environment.

    python compressor_program.py quantise REQUEST.json
    python compressor_program.py ask REQUEST.json

A file of its own that imports nothing of llmbench: its interpreter has llm-compressor, torch and transformers, and no more.
Lines on standard output that begin with `llmbench: ` are steps for people. Arrays are handed back as `.npy`, without pickle.

REQUEST of `quantise`: `model` (a folder that is only read), `output` (an empty folder), `scheme` (int8, w4a16, awq or fp8),
`group` (weights that share a scale; 4 bits only), `rows` (token ids to calibrate with), `trust_remote_code`.

REQUEST of `ask`: `folders` (pairs of a model's folder and an empty one for what it says), `dtype`, `sequences` (token ids),
`prompts` (how many ids of each are the prompt), `new_tokens`, `texts` (pairs of a text and whether it begins a prompt),
`held_out` (pairs of token ids and labels, -100 where nothing is learned), `trust_remote_code`. It writes `logits-NUMBER.npy`,
(tokens, vocabulary) in float32, and `answers.json` for each. In that of every folder but the first, `layers` says how far
attention and the rest of each layer are off when the layer is given what that of the first folder was given: the length of
the difference of the two outputs over the length of the first.
"""

from __future__ import annotations

import argparse
import json
import math
from importlib import metadata
from pathlib import Path
from typing import Any

_FEW = 4
"""Sequences with which layers are compared: what goes into each layer is kept in memory."""
_PACKAGES = ("llmcompressor", "compressed-tensors", "torch", "transformers")


def main(arguments: list[str] | None = None) -> None:
    """Reads the request and does what it asks."""
    parser = argparse.ArgumentParser(description="Quantise a model's folder, or ask one. Started by `llmbench export`.")
    parser.add_argument("task", choices=("quantise", "ask"))
    parser.add_argument("request", type=Path, help="a JSON file; see the head of this program")
    given = parser.parse_args(arguments)
    request = json.loads(given.request.read_text(encoding="utf-8"))
    match given.task:
        case "quantise":
            quantise(request)
        case _:
            ask(request)


def quantise(request: dict[str, Any]) -> None:
    """Writes the quantised model, which llm-compressor calibrates layer by layer."""
    _say("Loading llm-compressor")
    import torch
    from datasets import Dataset  # type: ignore[import-untyped]
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    if not torch.cuda.is_available():
        _pin_nothing()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        request["model"], dtype="auto", trust_remote_code=request["trust_remote_code"], local_files_only=True
    )
    rows = request["rows"]
    _say(f"Quantising to {request['scheme']}" + (f", calibrated with {len(rows)} rows" if rows else ""))
    more: dict[str, Any] = {}
    if rows:
        more = {"dataset": Dataset.from_list([{"input_ids": ids} for ids in rows])}
        more |= {"num_calibration_samples": len(rows), "max_seq_length": max(map(len, rows))}
        more |= {"shuffle_calibration_samples": False}
    oneshot(model=model, recipe=_recipe(request["scheme"], request["group"]), **more)
    _say("Writing the quantised model")
    model.save_pretrained(request["output"], save_compressed=True)
    found = {name: metadata.version(name) for name in _PACKAGES}
    Path(request["output"], "compressor.json").write_text(json.dumps(found), encoding="utf-8")


def ask(request: dict[str, Any]) -> None:
    """Writes what folders say, read by transformers with the activations rounded as when they are served."""
    _say("Asking the merged model and the quantised one")
    known: list[dict[str, list[Any]]] = []
    for folder, output in request["folders"]:
        _ask(folder, Path(output), request, known)


def _ask(folder: str, output: Path, request: dict[str, Any], known: list[dict[str, list[Any]]]) -> None:
    import numpy as np
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    trust = request["trust_remote_code"]
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust, local_files_only=True)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, request["dtype"]),
        output_loading_info=True,
        use_safetensors=True,
        trust_remote_code=trust,
        local_files_only=True,
    )
    model, loading = loaded
    if loading["missing_keys"]:
        raise SystemExit(f"its weights lack {sorted(loading['missing_keys'])[0]}")
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    with torch.no_grad():
        for i, ids in enumerate(request["sequences"]):
            np.save(output / f"logits-{i}.npy", _logits(model, ids).float().cpu().numpy(), allow_pickle=False)
        prompts = [ids[:n] for ids, n in zip(request["sequences"], request["prompts"], strict=True)]
        found = {
            "greedy": [_greedy(model, ids, request["new_tokens"]) for ids in prompts],
            "tokens": [tokenizer(text, add_special_tokens=begins)["input_ids"] for text, begins in request["texts"]],
            "stops": _stops(model),
            "template": tokenizer.chat_template,
            "loss": _loss(model, request["held_out"]),
            "layers": _layers(model, request["sequences"][:_FEW], known),
        }
    (output / "answers.json").write_text(json.dumps(found), encoding="utf-8")


def _recipe(scheme: str, group: int) -> list[Any]:
    """llm-compressor's modifiers. The head stays as it is: it is the embedding where the two are tied, and costs most."""
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    left = ["re:.*lm_head"]
    match scheme:
        case "int8":
            return [GPTQModifier(targets="Linear", scheme="W8A8", ignore=left)]
        case "w4a16":
            return [GPTQModifier(config_groups=_four_bits(group, symmetric=True), ignore=left)]
        case "awq":
            from llmcompressor.modifiers.transform.awq import AWQModifier

            return [AWQModifier(), QuantizationModifier(config_groups=_four_bits(group, symmetric=False), ignore=left)]
        case "fp8":
            return [QuantizationModifier(targets="Linear", scheme="FP8_DYNAMIC", ignore=left)]
        case _:
            raise SystemExit(f"scheme {scheme}: there is none of this name")


def _four_bits(group: int, *, symmetric: bool) -> dict[str, Any]:
    weights = {"num_bits": 4, "type": "int", "symmetric": symmetric, "strategy": "group", "group_size": group}
    return {"group_0": {"targets": ["Linear"], "weights": weights}}


def _pin_nothing() -> None:
    """AWQ pins the memory of what it keeps so that it gets to a GPU faster, and fails where there is none."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda self, batch_index, input_names=None: None


def _logits(model: Any, ids: list[int]) -> Any:
    """(tokens, vocabulary)."""
    import torch

    return model(input_ids=torch.tensor([ids], device=model.device), use_cache=False).logits[0]


def _greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """What it writes after a prompt, the likeliest token each time."""
    import torch
    from transformers import GenerationConfig

    asked = torch.tensor([ids], device=model.device)
    greedily: Any = GenerationConfig(max_new_tokens=count, do_sample=False, pad_token_id=0)  # type: ignore[no-untyped-call]
    made = model.generate(input_ids=asked, attention_mask=torch.ones_like(asked), generation_config=greedily)
    found: list[int] = made[0, len(ids) :].tolist()
    return found


def _loss(model: Any, rows: list[list[list[int]]]) -> float | None:
    """Nats a token that is learned, over the held-out rows; None without any."""
    import torch

    total, count = 0.0, 0
    for ids, labels in rows:
        wanted = torch.tensor(labels[1:], device=model.device)
        said = _logits(model, ids)[:-1].float()
        total += float(torch.nn.functional.cross_entropy(said, wanted, ignore_index=-100, reduction="sum"))
        count += int((wanted != -100).sum())
    return total / count if count else None


def _layers(model: Any, sequences: list[list[int]], known: list[dict[str, list[Any]]]) -> dict[str, float]:
    """How far each layer's parts are off, given what the first model's layer was given, whose inputs and outputs this keeps."""
    import torch

    layers = max((one for one in model.modules() if isinstance(one, torch.nn.ModuleList)), key=len, default=())
    seen: dict[str, list[Any]] = {}
    hooks = []

    def listen(place: str, part: Any) -> None:
        def before(_: Any, inputs: Any) -> Any:
            heard = seen.setdefault(f"{place} in", [])
            given = known[0][f"{place} in"][len(heard)].to(inputs[0].device) if known else inputs[0]
            heard.append(given.cpu())
            return (given, *inputs[1:])

        def after(name: str) -> Any:
            def hook(_: Any, __: Any, output: Any) -> None:
                seen.setdefault(name, []).append((output[0] if isinstance(output, tuple) else output).cpu())

            return hook

        hooks.append(part.register_forward_pre_hook(before))
        for name, child in part.named_children():
            if next(child.children(), None) is not None:  # attention and the rest, and no norms
                hooks.append(child.register_forward_hook(after(f"{place}.{name}")))

    for at, layer in enumerate(layers):
        listen(str(at), layer)
    for ids in sequences:
        _logits(model, ids)
    for hook in hooks:
        hook.remove()
    if not known:
        known.append(seen)
        return {}
    return {name: _off(known[0][name], seen[name]) for name in seen if not name.endswith(" in")}


def _off(one: list[Any], other: list[Any]) -> float:
    """The length of the difference over the length of `one`."""
    away = sum(float((a.float() - b.float()).square().sum()) for a, b in zip(one, other, strict=True))
    whole = sum(float(a.float().square().sum()) for a in one)
    return math.sqrt(away / max(whole, 1e-30))


def _stops(model: Any) -> list[int]:
    """The tokens at which generation stops."""
    found = model.generation_config.eos_token_id
    return found if isinstance(found, list) else [] if found is None else [found]


def _say(step: str) -> None:
    print(f"llmbench: {step}", flush=True)


if __name__ == "__main__":
    main()
