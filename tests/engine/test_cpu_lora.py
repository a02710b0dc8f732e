"""LoRA in vLLM's CPU worker: what vLLM's own functions give, and rows of the base model left alone."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbench import engine

COMPARED = """
import json, runpy, sys
import torch
import vllm.lora.punica_wrapper.punica_cpu as punica
from vllm.lora.layers import LoRAMapping

dice = torch.Generator().manual_seed(0)
first = [torch.randn(3, 1, 8, 48, generator=dice).bfloat16() for _ in range(2)]
second = [torch.randn(3, 1, 64, 8, generator=dice).bfloat16(), torch.randn(3, 1, 32, 8, generator=dice).bfloat16()]
for weights in first + second:
    weights[2] = 0  # vLLM gives rows of the base model the last slot

def added(ids, prefill, empty=True):
    if not empty:
        for weights in first + second:
            weights[2] = 1
    wrapper = punica.PunicaWrapperCPU(512, 512, "cpu")
    wrapper.update_metadata(LoRAMapping(tuple(ids), tuple(ids), is_prefill=prefill), [7, 9, None], 3, 100)
    x = torch.randn(len(ids), 48, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = torch.randn(len(ids), 96, generator=torch.Generator().manual_seed(2)).bfloat16()
    before = y.clone()
    wrapper.add_lora_linear(y, x, tuple(first), tuple(second), 0.5, (64, 32))
    return before, y

BATCHES = {"one": [7] * 40, "two": [7] * 20 + [9] * 20, "mixed": [7, 0, 9, 9, 0, 7, 7, 9] * 4, "base": [0] * 9, "single": [9]}
cases = [(name, prefill) for name in BATCHES for prefill in (True, False)]
own = {case: added(BATCHES[case[0]], case[1])[1] for case in cases}
assert runpy.run_path(sys.argv[1])["install"]()
same = [torch.allclose(added(BATCHES[name], prefill)[1], own[name, prefill], rtol=2**-7, atol=2**-7) for name, prefill in cases]
before, after = added(BATCHES["mixed"], True, empty=False)
base = torch.tensor(BATCHES["mixed"]) == 0
print(json.dumps({"same": same, "left": torch.equal(before[base], after[base]), "moved": not torch.equal(before, after)}))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_grouped_products_are_what_vllm_computes() -> None:
    path = Path(engine.__file__).with_name("cpu_lora.py")
    done = subprocess.run(
        [sys.executable, "-c", COMPARED, str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_LOGGING_LEVEL": "ERROR"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"same": [True] * 10, "left": True, "moved": True}


def test_a_vllm_with_another_signature_is_left_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from llmbench.engine import cpu_lora

    namespace: dict[str, Any] = {}
    for name, signature in cpu_lora.RECORDED.items():
        changed = signature.replace("scale)", "scale, bias)") if name == "_shrink_decode" else signature
        exec(f"def {name}{changed}: ...", namespace)
    before = {name: namespace[name] for name in cpu_lora.RECORDED}
    wrapper = type("PunicaWrapperCPU", (), before)
    monkeypatch.setattr(importlib, "import_module", lambda name: SimpleNamespace(PunicaWrapperCPU=wrapper))
    assert cpu_lora.install() is False
    assert {name: vars(wrapper)[name] for name in before} == before
    assert "PunicaWrapperCPU._shrink_decode is not as recorded" in capsys.readouterr().err


def test_another_vllm_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.engine import cpu_lora

    class Other:
        PunicaWrapperCPU = type("PunicaWrapperCPU", (), {})

    monkeypatch.setattr(importlib, "import_module", lambda name: Other)
    assert cpu_lora.install() is False

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert cpu_lora.install() is False
