"""The self-test passes here, and fails when something is broken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests import warm

if TYPE_CHECKING:
    from llmbench.training import selftest


pytestmark = pytest.mark.slow


def test_every_trial_holds_with_the_versions_installed(tmp_path: Path) -> None:
    import torch

    from llmbench.training import selftest

    done = warm.run("training", warm.LLMBENCH, "selftest", "--json", cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["passed"]
    assert {name["state"] for name in report["borrowed"]} == {"ok"}
    assert {name["package"] for name in report["borrowed"]} == {"trl", "transformers", "peft", "torch", "bitsandbytes", "vllm"}
    assert [trial["name"] for trial in report["trials"]] == list(selftest.TRIALS)
    assert all(trial["difference"] <= trial["tolerance"] for trial in report["trials"])
    assert torch.cuda.is_available() or [t["name"] for t in report["trials"] if t["skipped"]] == ["packing, 16 bits"]
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def trial(name: str) -> selftest.Result:
    from llmbench.training import selftest

    compares, tolerance, run = selftest.TRIALS[name]
    with selftest._home() as folder:
        return selftest.Result(name, compares, run(selftest.Place(folder, "cpu")), tolerance, 0.0)


@pytest.mark.parametrize("name", ["separation", "saving"])
def test_a_trial_holds(name: str) -> None:
    assert trial(name).passed


def test_attention_that_leaks_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    whole = packed_attention._split

    def leaking(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: list[int], *rest: Any) -> torch.Tensor:
        return whole(query, key, value, [sum(lengths)], *rest)

    monkeypatch.setattr(packed_attention, "_split", leaking)
    assert not trial("separation").passed


def test_an_adapter_that_is_not_what_was_trained_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training import save

    result = save.result

    def spoilt(model: Any, *rest: Any, **more: Any) -> None:
        weight = next(p for name, p in model.named_parameters() if "lora_B" in name)
        kept = weight.detach().clone()
        weight.data.add_(0.1)
        result(model, *rest, **more)
        weight.data.copy_(kept)

    monkeypatch.setattr(save, "result", spoilt)
    assert not trial("saving").passed
