"""The certificate that a training leaves: what the saved adapter says when PEFT loads it again, and its base without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench import parity, runs, training

from .conftest import Write


def again(folder: Path, base: Path) -> Any:
    """The certificate of the saved adapter beside the untouched base, computed from the files."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmbench.training import certificate

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, str(folder))
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    return certificate.of(model, tokenizer, dtype=torch.float32, quantized=False, base={}, folder=folder)


@pytest.mark.filterwarnings("ignore")  # of torch's own compiler, which turns one that is raised into an error
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("lora.init_lora_weights=pissa",),
        ("lora.init_lora_weights=olora", "lora.use_rslora=true"),
        ("lora.save_dtype=bfloat16",),
        ("training.torch_compile=true",),
    ],
    ids=lambda overrides: " ".join(overrides) or "plain",
)
def test_it_says_what_the_saved_adapter_says(write: Write, tiny: Path, overrides: tuple[str, ...]) -> None:
    document = write("certified", "training.max_steps=3", "training.learning_rate=1e-2", *overrides)
    run = runs.create(document)
    training.train(document, run)
    found = parity.read(run.adapter)
    assert found is not None and found.changed(run.adapter) == []
    assert "warning" not in run.status or "certificate" not in (run.status["warning"] or "")
    theirs = again(run.adapter, tiny)
    assert [probe.trained.ids for probe in found.probes] == [probe.trained.ids for probe in theirs.probes]
    verdict = parity.judge(found, [p.trained for p in theirs.probes], [p.base for p in theirs.probes])
    assert verdict.state == "proven" and verdict.greedy_same == 24, verdict
    assert verdict.base_difference is not None and verdict.base_difference < 1e-4


def test_a_certificate_that_cannot_be_made_costs_no_adapter(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training import certificate

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(certificate, "of", fail)
    document = write("uncertified", "training.max_steps=2")
    run = runs.create(document)
    training.train(document, run)
    assert run.state == "finished" and (run.adapter / "adapter_model.safetensors").is_file()
    assert parity.read(run.adapter) is None
    warning = run.status["warning"]
    assert warning.startswith("No certificate was written (CUDA out of memory.)") and "llmbench certify uncertified" in warning
