"""DPO, KTO and ORPO lose, measure and learn what they do with TRL's own passes over logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.training.kernels import patches

from .judgements import rows, written
from .test_patches import changed

PASSED = {
    "loss", "grad_norm", "entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected", "logps/chosen", "logps/rejected",
    "kl", "rewards/margins", "rewards/chosen", "log_odds_ratio", "nll_loss", "eval_loss", "reward",
}  # fmt: skip


def curve(tmp_path: Path, method: str, name: str, *overrides: str, **sections: Any) -> list[dict[str, Any]]:
    """Each step of a short run in float32."""
    document = written(tmp_path, method, "training.max_steps=3", *overrides, name=name, **sections)
    run = runs.create(document)
    training.train(document, run)
    return rows(run)


@pytest.mark.parametrize("adapted", [True, False], ids=["adapter", "whole"])
@pytest.mark.parametrize("method", ["dpo", "kto", "orpo"])
def test_a_method_learns_as_with_trls_own_logits(
    method: str, adapted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: dict[str, Any] = {} if adapted else {"lora": None}
    overrides = ["training.learning_rate=1e-3", *(["dpo.use_weighting=true"] if method == "dpo" and adapted else [])]
    ours = curve(tmp_path, method, "ours", *overrides, **whole)
    for name in ("LEARNED_ONLY", "LOG_PROBS", "ORPO_FORWARD"):
        monkeypatch.setattr(patches, name, changed(getattr(patches, name)))
    theirs = curve(tmp_path, method, "theirs", *overrides, "training.performance=plain", **whole)
    assert len(ours) == len(theirs) == 3
    assert ours[0]["loss"] != ours[-1]["loss"]
    for mine, other in zip(ours, theirs, strict=True):
        compared = PASSED & set(other)
        assert {"loss", "grad_norm"} < compared <= set(mine)
        for name in compared - ({"logits/chosen", "logits/rejected"} if method == "orpo" else set()):
            assert mine[name] == pytest.approx(other[name], rel=2e-5, abs=2e-6), name
