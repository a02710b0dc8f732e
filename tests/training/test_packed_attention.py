"""Rows end to end give the losses and gradients of rows one by one, and see nothing of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import torch

SMALL = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2,
    "pad_token_id": 0,
}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {},
    "qwen2": {"use_sliding_window": False},
    "mistral": {"sliding_window": 5},
    "gemma3_text": {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {},
    "olmo2": {},
}
LENGTHS = (9, 1, 14, 6)


def model_of(kind: str, attention: str = "sdpa", **more: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **FAMILIES[kind], **more})
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()  # type: ignore[no-untyped-call]


def rows() -> list[torch.Tensor]:
    import torch

    draw = torch.Generator().manual_seed(1)
    return [torch.randint(3, 97, (1, length), generator=draw) for length in LENGTHS]


def end_to_end(parts: list[torch.Tensor]) -> dict[str, Any]:
    import torch

    ends = torch.tensor([0, *torch.tensor([part.shape[1] for part in parts]).cumsum(0)], dtype=torch.int32)
    return {
        "input_ids": torch.cat(parts, 1),
        "position_ids": torch.cat([torch.arange(part.shape[1]) for part in parts])[None],
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": max(LENGTHS),
        "max_length_k": max(LENGTHS),
        "use_cache": False,
    }


@pytest.mark.parametrize("kind", FAMILIES)
def test_rows_end_to_end_score_and_learn_as_rows_one_by_one(kind: str) -> None:
    import torch
    from torch.nn import functional

    from llmbench.training.kernels import packed_attention

    plain, joined = model_of(kind, "eager"), model_of(kind)
    assert packed_attention.obstacle(joined.config) is None
    packed_attention.install(joined)
    parts = rows()
    apart = torch.cat([plain(input_ids=part, use_cache=False).logits for part in parts], 1)
    together = joined(**end_to_end(parts)).logits
    assert torch.allclose(together, apart, atol=2e-5)
    target = torch.cat(parts, 1)[0]
    for logits in (apart, together):
        functional.cross_entropy(logits[0], target).backward()  # type: ignore[no-untyped-call]
    for (name, ours), theirs in zip(joined.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        assert torch.allclose(ours.grad, theirs.grad, atol=2e-5), name


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_row_does_not_see_the_row_before_it(kind: str) -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    model = model_of(kind)
    packed_attention.install(model)
    parts = rows()
    with torch.no_grad():
        before = model(**end_to_end(parts)).logits[:, LENGTHS[0] :]
        parts[0] = (parts[0] + 5) % 90 + 3
        after = model(**end_to_end(parts)).logits[:, LENGTHS[0] :]
    assert torch.equal(before, after)


def test_without_row_ends_a_model_reads_as_it_did() -> None:
    """Generation pads on the left, brings a mask, and keeps keys and values."""
    import torch
    from torch.nn import functional

    from llmbench.training.kernels import packed_attention

    plain, installed = model_of("mistral"), model_of("mistral")
    packed_attention.install(installed)
    parts = rows()
    ids = torch.stack([functional.pad(part[0], (14 - part.shape[1], 0)) for part in parts])
    mask = torch.stack([functional.pad(torch.ones(part.shape[1], dtype=torch.long), (14 - part.shape[1], 0)) for part in parts])
    said = [m.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, do_sample=False) for m in (plain, installed)]
    assert torch.equal(*said)
    with torch.no_grad():
        assert torch.allclose(installed(input_ids=parts[2]).logits, plain(input_ids=parts[2]).logits, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        ("gemma2", {}, "caps its scores"),
        ("mamba", {}, "linear_attention"),
        ("recurrent_gemma", {}, "state"),
        ("bloom", {}, "cannot be replaced"),
        ("gpt_oss", {}, "cannot be replaced"),
        ("qwen3_next", {"layer_types": ["linear_attention", "full_attention"]}, "linear_attention"),
    ],
)
def test_a_model_that_cannot_says_why(kind: str, values: dict[str, Any], reason: str) -> None:
    from transformers import AutoConfig

    from llmbench.training.kernels import packed_attention

    config = AutoConfig.for_model(kind, num_hidden_layers=2, **values)
    assert reason in (packed_attention.obstacle(config) or "")


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_trial_tells_a_model_that_keeps_rows_apart_from_one_that_does_not(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.kernels import packed_attention

    model = model_of(kind)
    assert packed_attention.leak(model) is None
    whole = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: whole(**{k: v for k, v in given.items() if not k.startswith("cu_")}))
    assert "changed the next row's logits" in (packed_attention.leak(model) or "")


@pytest.mark.parametrize("fails", [False, True])
def test_a_trial_leaves_the_model_as_it_was(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.kernels import packed_attention

    model = model_of("mistral").train()
    model.model.layers[0].eval()
    before = state_of(model)
    if fails:
        monkeypatch.setattr(model, "forward", lambda **given: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            packed_attention.leak(model)
    else:
        assert packed_attention.leak(model) is None
    assert state_of(model) == before


def test_a_trial_leaves_each_part_its_own_attention() -> None:
    """A model of images and text may have another one in each."""
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    from llmbench.training.kernels import packed_attention

    torch.manual_seed(0)
    text = {**SMALL, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}
    seeing = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}
    model: Any = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config={**seeing, "patch_size": 14}))
    model.config.vision_config._attn_implementation = "eager"
    before = state_of(model)
    with packed_attention.tried(model):
        assert model.config.text_config._attn_implementation == packed_attention.NAME
    assert state_of(model) == before
    assert (model.config._attn_implementation, model.config.vision_config._attn_implementation) == ("sdpa", "eager")


def state_of(model: Any) -> list[Any]:
    """Each module's mode, and each configuration's attention."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    parts = [part for one in configs for part in (one, *(getattr(one, name) for name in one.sub_configs))]
    return [[module.training for module in model.modules()], [part._attn_implementation for part in parts]]


def test_bins_hold_every_row_once_and_no_more_than_they_can() -> None:
    import torch

    from llmbench.training.loop.batches import packed

    lengths = torch.randint(1, 500, (997,), generator=torch.Generator().manual_seed(3)).tolist()
    bins = packed(lengths, 512)
    assert sorted(row for rows in bins for row in rows) == list(range(997))
    assert all(sum(lengths[row] for row in rows) <= 512 for rows in bins)
    assert len(bins) <= -(-sum(lengths) // 512) * 1.03, "best fit wastes a few percent"
    assert packed([700, 100], 512) == [[0], [1]], "a row over the size has a bin to itself"
    assert packed([4, 3, 3, 2], 6) == [[0, 3], [1, 2]]


def test_keys_for_each_head_are_attended_to_as_shared_ones() -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    query, key, value = (torch.randn(1, heads, 20, 16) for heads in (6, 2, 2))
    shared = packed_attention._split(query, key, value, [7, 13], None, 0.0, None)
    apart = packed_attention._split(query, *packed_attention._each_head(query, key, value), [7, 13], None, 0.0, None)
    assert torch.allclose(shared, apart, atol=1e-6)


def test_flash_attention_is_given_only_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (8, 0))
    rows = torch.zeros(1, 2, 4, 64)
    assert (
        packed_attention._flash(rows.bfloat16()) and packed_attention._flash(rows.half()) and not packed_attention._flash(rows)
    )
    assert not packed_attention._flash(rows.half()[..., :20]) and not packed_attention._flash(torch.zeros(1, 2, 4, 264).half())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (7, 5))
    assert not packed_attention._flash(rows.half()), "a T4 has no such kernel"


@pytest.mark.gpu
def test_rows_end_to_end_score_as_rows_one_by_one_on_a_gpu() -> None:
    import torch

    from llmbench.training.kernels import packed_attention

    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    for kind in FAMILIES:
        plain, joined = model_of(kind).cuda().bfloat16(), model_of(kind).cuda().bfloat16()
        packed_attention.install(joined)
        parts = [part.cuda() for part in rows()]
        with torch.no_grad():
            apart = torch.cat([plain(input_ids=part, use_cache=False).logits for part in parts], 1)
            batch = {
                name: value.cuda() if isinstance(value, torch.Tensor) else value for name, value in end_to_end(parts).items()
            }
            together = joined(**batch).logits
        assert torch.allclose(together.float(), apart.float(), atol=5e-2), kind
