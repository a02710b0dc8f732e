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


@pytest.mark.parametrize(("method", "adapted"), [("dpo", True), ("dpo", False), ("kto", True), ("orpo", False)])
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


def test_padded_rows_are_read_end_to_end_and_said_in_their_places(tmp_path: Path) -> None:
    """Padding on either side, rows of one token, and labels on a row's first token, which nothing comes before."""
    import torch

    from llmbench.training.kernels import fused_head, packed_rows

    job = training.prepare(written(tmp_path, "dpo", "training.padding_free=false"))
    model = job.loaded.model.eval()
    outputs = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")
    fused_head.install(model, outputs)
    ids = torch.randint(10, 900, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 9, [1] * 5 + [0] * 4, [0] * 3 + [1] * 6, [1] + [0] * 8])
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, :4] = -100
    labels[2, 3] = -100  # of a row that is padded before, the first token's label counts for the padding
    given = {"input_ids": ids, "attention_mask": mask, "labels": labels, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    with fused_head.scoring(model), torch.no_grad():
        padded = model(**given, fused_lm_head=True)
        asked = model(input_ids=ids[:1]).logits
        packed_rows.install(model)
        joined = model(**given, fused_lm_head=True)
        again = model(input_ids=ids[:1]).logits
    for name in (*outputs, "label_mask"):
        assert torch.allclose(getattr(joined, name).float(), getattr(padded, name).float(), atol=2e-5), name
    assert joined.label_mask.sum() == 5 + 4 + 5
    assert torch.allclose(asked, again, atol=1e-5)


def test_what_a_method_packs_is_chosen_and_said(tmp_path: Path) -> None:
    from llmbench.errors import RecipeError

    for method, packs in (("kto", True), ("reward", False)):
        job = training.prepare(written(tmp_path, method))
        [choice] = [choice for choice in job.choices if choice.name == "padding_free"]
        assert choice.value is packs
        assert packs or choice.reason == "TRL's reward trainer pads its own batches"
    with pytest.raises(RecipeError, match="packing: not with method: dpo, whose batches are rows"):
        training.prepare(written(tmp_path, "dpo", "training.packing=true"))
