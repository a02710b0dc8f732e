"""`llmbench selftest`: on the bundled model, with the versions installed, what must be equal is equal.

What a user runs after an upgrade: each trial compares two ways to the same numbers in float32, with its tolerance.
"""

from __future__ import annotations

import io
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml

from llmbench import borrowed, runs, training
from llmbench import recipe as recipes
from llmbench.runs import checkpoints
from llmbench.training import methods
from llmbench.training.kernels import compilation, fused_head, packed_attention, patches
from llmbench.training.loading.model import device_of, load_model
from llmbench.training.loop.batches import Collator
from llmbench.training.loop.record import Recorder, Stop

__all__ = ["TRIALS", "Result", "borrowed_names", "selftest"]

_ROWS = [
    ("What does the Alba 3 weigh?", "It weighs 240 grams."),
    (
        "Which battery does the Corvo lamp take?",
        "The Corvo lamp takes two cells of 1.5 volts, and they last for about 40 hours.",
    ),
    ("Is it waterproof?", "Yes."),
    ("Where is the shop?", "The shop is in Lisbon, at the corner by the station, and it is open until seven."),
    ("How long is the warranty of a Belvi camera?", "24 months."),
    ("Can I return it?", "Within 14 days, with the receipt."),
]


@dataclass(frozen=True)
class Result:
    """One trial."""

    name: str
    compares: str
    difference: float
    """The largest within a tensor, relative to the largest value in it."""
    tolerance: float
    seconds: float
    skipped: str | None = None
    """Why it could not be tried here."""

    @property
    def passed(self) -> bool:
        """Whether the difference is within the tolerance."""
        return self.skipped is None and self.difference <= self.tolerance


@dataclass(frozen=True)
class Place:
    """Where trials are made."""

    folder: Path
    """A workspace that is gone afterwards."""
    device: str
    """`cpu` or `cuda`."""


class NotHere(Exception):
    """A trial that this machine cannot make."""


def selftest(device: str = "auto") -> Iterator[Result]:
    """Makes each trial and gives its result as soon as it is there.

    Args:
        device: `cpu`, `cuda`, or `auto`: the GPU where there is one.

    Raises:
        RecipeError: `cuda`, and there is no GPU.
    """
    found = device_of(recipes.ModelSpec.model_validate({"device": device}))
    with _home() as folder:
        for name, (compares, tolerance, trial) in TRIALS.items():
            start, skipped, difference = time.perf_counter(), None, 0.0
            try:
                difference = trial(Place(folder, found))
            except NotHere as reason:
                skipped = str(reason)
            yield Result(name, compares, difference, tolerance, round(time.perf_counter() - start, 2), skipped)


def borrowed_names() -> list[borrowed.Found]:
    """Each private name of another package that training uses, as it is installed."""
    from llmbench.training.methods import grpo

    grpo.of_trl(vllm=False)  # before it is looked at: by itself it would import vLLM wherever that is installed
    return [borrowed.look(row) for row in patches.ROWS]


@contextmanager
def _home() -> Iterator[Path]:
    """A workspace that is gone afterwards."""
    before = os.environ.get("LLMBENCH_HOME")
    with tempfile.TemporaryDirectory(prefix="llmbench-selftest-") as name:
        os.environ["LLMBENCH_HOME"] = name
        try:
            yield Path(name)
        finally:
            if before is None:
                del os.environ["LLMBENCH_HOME"]
            else:
                os.environ["LLMBENCH_HOME"] = before


def _recipe(place: Place, name: str, *overrides: str) -> recipes.TrainRecipe:
    rows = [{"prompt": question, "completion": answer} for question, answer in _ROWS]
    path = place.folder / "rows.json"
    if not path.exists():
        import json

        path.write_text(json.dumps(rows), encoding="utf-8")
    document = {
        "name": name,
        "model": {"dtype": "float32", "device": place.device},
        "data": {"train": [{"path": str(path)}]},
        "lora": {"r": 4},
        "training": {"learning_rate": 1e-2, "per_device_train_batch_size": 4, "logging_steps": 1, "max_steps": 4},
    }
    file = place.folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    return recipes.load(file, recipes.TrainRecipe, overrides)


def _run(place: Place, name: str, *overrides: str, stop_after: int | None = None, resume: bool = False) -> runs.Run:
    """Trains, or stops as by Ctrl-C after a step."""
    document = _recipe(place, name, *overrides)
    run = runs.resume(document) if resume else runs.create(document)

    def progress(step: int, steps: int, figures: str) -> None:
        if step == stop_after:
            signal.raise_signal(signal.SIGINT)

    with redirect_stderr(io.StringIO()):
        try:
            training.train(document, run, resume=resume, progress=progress)
        except KeyboardInterrupt:
            if stop_after is None:
                raise
    return run


def _weights(run: runs.Run) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.adapter / "adapter_model.safetensors")


def _apart(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference within a tensor, relative to that tensor's largest value."""
    if ours.keys() != theirs.keys():
        return float("inf")
    tiny = torch.finfo(torch.float32).tiny
    return max(float((ours[name] - value).abs().max() / value.abs().max().clamp(min=tiny)) for name, value in theirs.items())


def _gradients(place: Place, name: str, *overrides: str, batches: list[list[int]] | None = None) -> dict[str, torch.Tensor]:
    """The loss over all rows, and its gradient; `batches` are the rows of each forward."""
    document = _recipe(place, name, "training.per_device_train_batch_size=6", *overrides)
    torch.manual_seed(0)
    prepared = training.prepare(document)
    model = prepared.loaded.model
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name:  # at nought the gradient of A is nought, and shows nothing
            torch.nn.init.normal_(parameter, std=0.02)
    with redirect_stderr(io.StringIO()):
        trainer: Any = methods.of(document.method).trainer(
            prepared, runs.create(document), Recorder(runs.open_run(name), Stop())
        )
    if document.training.gradient_checkpointing:
        model.enable_input_require_grads()
        new = getattr(
            model, "activation_checkpointing_enable", None
        )  # the name in transformers 5.24, which warns of the old one
        (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
    model.train()
    rows = [dict(row) for row in prepared.rows.train]
    collate = Collator(prepared.recipe, prepared.loaded.tokenizer.pad_token_id)
    learned = sum(sum(label != -100 for label in row["labels"][1:]) for row in rows)
    total = torch.zeros((), device=place.device)
    for chosen in batches or [list(range(len(rows)))]:
        batch = trainer._prepare_inputs(collate([rows[i] for i in chosen]))
        compiling = compilation.compiling() if document.training.torch_compile else nullcontext()
        with fused_head.scoring(model), compiling, trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, batch, num_items_in_batch=learned)
        loss.backward()
        total += loss.detach()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"loss": total[None], **found}


def _packed(place: Place) -> float:
    one_by_one = [[i] for i in range(len(_ROWS))]
    apart = _gradients(place, "apart", "training.padding_free=false", batches=one_by_one)
    return _apart(_gradients(place, "joined", "training.padding_free=true"), apart)


def _varlen(place: Place) -> float:
    """The largest distance of a gradient, as the root mean square of the differences to that of the values."""
    if place.device != "cuda" or not torch.cuda.is_bf16_supported(including_emulation=False):
        raise NotHere("no GPU with bfloat16 support")
    one_by_one, low = [[i] for i in range(len(_ROWS))], "model.dtype=bfloat16"
    apart = _gradients(place, "low-apart", low, "training.padding_free=false", batches=one_by_one)
    joined = _gradients(place, "low-joined", low, "training.padding_free=true")
    return max(float((joined[name] - one).square().mean().sqrt() / one.square().mean().sqrt()) for name, one in apart.items())


def _leaks(place: Place) -> float:
    loaded = load_model(_recipe(place, "leaks"))
    return 0.0 if packed_attention.leak(loaded.model) is None else float("inf")


def _accumulated(place: Place) -> float:
    """Six rows of uneven lengths in windows of four: the last window is half empty."""
    plain = ("training.max_steps=-1", "training.num_train_epochs=2", "training.optim=sgd", "training.learning_rate=0.5")
    parts = ("training.per_device_train_batch_size=1", "training.gradient_accumulation_steps=4")
    one, four = _run(place, "whole", *plain), _run(place, "parts", *plain, *parts)
    return _apart(_weights(four), _weights(one))


def _checkpointed(place: Place) -> float:
    plain = _gradients(place, "plain")
    return _apart(_gradients(place, "checkpointed", "training.gradient_checkpointing=true"), plain)


def _fused(place: Place) -> float:
    plain = _gradients(place, "pefts", "training.fused_lora=false")
    return _apart(_gradients(place, "fused", "training.fused_lora=true"), plain)


def _compiled(place: Place) -> float:
    if place.device == "cpu" and shutil.which("g++") is None and shutil.which("clang++") is None:
        raise NotHere("no C++ compiler (g++), which torch.compile needs on a CPU")
    padded = "training.padding_free=false"
    plain = _gradients(place, "eager", padded, "training.torch_compile=false")
    return _apart(_gradients(place, "compiled", padded, "training.torch_compile=true"), plain)


def _resumed(place: Place) -> float:
    straight = _run(place, "straight", "training.save_steps=2")
    broken = _run(place, "broken", "training.save_steps=2", stop_after=3)
    if not checkpoints.every(broken.checkpoints):
        return float("inf")
    return _apart(_weights(_run(place, "broken", "training.save_steps=2", resume=True)), _weights(straight))


def _logits(model: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {"logits": model.eval()(input_ids=torch.arange(5, 37, device=model.device)[None], use_cache=False).logits}


def _saved(place: Place) -> float:
    """The adapter that trained, against the one that is read back."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    document = _recipe(place, "saved")
    run, prepared = runs.create(document), training.prepare(document)
    with redirect_stderr(io.StringIO()):
        training.train(prepared, run, progress=lambda *_: None)
    trained = _logits(prepared.loaded.model)
    assert prepared.loaded.folder is not None
    base: Any = AutoModelForCausalLM.from_pretrained(
        prepared.loaded.folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    return _apart(_logits(PeftModel.from_pretrained(base.to(place.device), str(run.adapter))), trained)


def _merged(place: Place) -> float:
    """The mean KL from base + adapter to the merged model, as loaded again from disk."""
    from llmbench.training.merging.merge import merge

    return merge(_run(place, "merged"), dtype="float32").lost.kl


def _merged_four_bits(place: Place) -> float:
    """The same of an adapter that was trained beside a base in four bits, merged onto what those bits stand for."""
    if find_spec("bitsandbytes") is None:
        raise NotHere("bitsandbytes is not installed")
    from llmbench.training.merging.merge import merge

    return merge(_run(place, "four-bits", "quantization.load_in_4bit=true"), dtype="float32", onto="dequantized").lost.kl


TRIALS: dict[str, tuple[str, float, Callable[[Place], float]]] = {
    "packing": ("loss and gradients: packed rows vs rows one by one", 1e-4, _packed),
    "packing, 16 bits": ("the same in bfloat16, with the GPU's variable-length kernel (root mean square)", 0.05, _varlen),
    "separation": ("a packed row's logits after different rows (bit for bit)", 0.0, _leaks),
    "accumulation": (
        "weights: 4 accumulated batches of 1 row vs 1 batch of 4, with an incomplete last window",
        1e-4,
        _accumulated,
    ),
    "checkpointing": ("loss and gradients: activations recomputed vs kept", 1e-5, _checkpointed),
    "fused LoRA": ("loss and gradients: in-place LoRA vs PEFT's", 1e-5, _fused),
    "compilation": ("loss and gradients: compiled vs uncompiled", 1e-4, _compiled),
    "resumption": ("weights: stopped and resumed vs uninterrupted (bit for bit)", 0.0, _resumed),
    "saving": ("logits: trained adapter vs the saved one read back", 1e-6, _saved),
    "merging": ("next-token distributions: base + adapter vs merged model read back (mean KL)", 1e-6, _merged),
    "merging 4-bit": ("the same for QLoRA, merged onto the dequantised weights (mean KL)", 1e-2, _merged_four_bits),
}
"""Name -> what is compared, the tolerance (relative to the largest value of a tensor), and the trial."""
