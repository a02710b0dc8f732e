"""Tiny models of many kinds with random weights: hidden size 32, two layers, the bundled tokenizer's 1,024 tokens."""

from __future__ import annotations

from typing import Any

_SPECIAL = {"vocab_size": 1024, "bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1}
_WIDTHS = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}  # fmt: skip
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
_SHARED = {
    "moe_intermediate_size": 16, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1,
    "first_k_dense_replace": 1,
}  # fmt: skip
_LATENT = {
    "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 8,
}  # fmt: skip
_MAMBA = {"state_size": 4, "hidden_size": 32, "num_hidden_layers": 2}
_SSM = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 16}

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    # dense
    "llama": ("Llama", _WIDTHS),
    "mistral": ("Mistral", _WIDTHS | {"sliding_window": 16}),
    "qwen2": ("Qwen2", _WIDTHS | {"tie_word_embeddings": True}),
    "gemma2": ("Gemma2", _WIDTHS | {"head_dim": 8, "final_logit_softcapping": 0.5, "initializer_range": 0.5}),
    "cohere2": ("Cohere2", _WIDTHS | {"logit_scale": 0.25}),
    "granite": ("Granite", _WIDTHS | {"logits_scaling": 0.5}),
    "phi3": ("Phi3", _WIDTHS),
    "gpt2": ("GPT2", _GPT2),
    "gpt_neox": ("GPTNeoX", {name: value for name, value in _WIDTHS.items() if name != "num_key_value_heads"}),
    "bloom": ("Bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gptj": ("GPTJ", _GPT2 | {"rotary_dim": 4}),
    # mixtures of experts
    "mixtral": ("Mixtral", _WIDTHS | _LOCAL),
    "qwen2_moe": ("Qwen2Moe", _WIDTHS | _EXPERTS | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("Qwen3Moe", _WIDTHS | _EXPERTS | {"head_dim": 8, "moe_intermediate_size": 16}),
    "gpt_oss": ("GptOss", _WIDTHS | _LOCAL | {"head_dim": 8, "sliding_window": 16}),
    "glm4_moe": ("Glm4Moe", _WIDTHS | _SHARED | {"head_dim": 8}),
    "deepseek_v3": ("DeepseekV3", _WIDTHS | _SHARED | _LATENT),
    "llama4": (
        "Llama4Text",
        _WIDTHS | {"head_dim": 8, "intermediate_size_mlp": 48, "num_local_experts": 2, "num_experts_per_tok": 1,
                   "interleave_moe_layer_step": 1, "attention_chunk_size": 32},
    ),
    "granitemoe": ("GraniteMoe", _WIDTHS | _LOCAL),
    "phimoe": ("Phimoe", _WIDTHS | _LOCAL),
    # states and hybrids
    "mamba": ("Mamba", _MAMBA),
    "mamba2": ("Mamba2", _MAMBA | {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16}),
    "falcon_h1": ("FalconH1", _WIDTHS | _SSM | {"mamba_d_ssm": 32, "mamba_d_head": 8}),
    "bamba": ("Bamba", _WIDTHS | _SSM | {"attn_layer_indices": [1]}),
    "lfm2": ("Lfm2", _WIDTHS | {"layer_types": ["conv", "full_attention"]}),
    "qwen3_next": (
        "Qwen3Next",
        _WIDTHS | _EXPERTS | {
            "head_dim": 8, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        },
    ),
    "granitemoehybrid": (
        "GraniteMoeHybrid",
        _WIDTHS | _LOCAL | _SSM | {"shared_intermediate_size": 16, "layer_types": ["mamba", "attention"]},
    ),
    # more between the layers and the logits than one product
    "modernbert-decoder": ("ModernBertDecoder", {n: v for n, v in _WIDTHS.items() if n != "num_key_value_heads"}),
}  # fmt: skip
"""Name -> class of the configuration, and what it is given."""

LINEARS = {
    "llama": 14, "mistral": 14, "qwen2": 14, "gemma2": 14, "cohere2": 14, "granite": 14, "phi3": 8, "gpt2": 8, "gpt_neox": 8,
    "bloom": 8, "gptj": 12, "mixtral": 8, "qwen2_moe": 14, "qwen3_moe": 8, "gpt_oss": 8, "glm4_moe": 14, "deepseek_v3": 16,
    "llama4": 14, "granitemoe": 8, "phimoe": 8, "mamba": 6, "mamba2": 2, "falcon_h1": 16, "bamba": 12, "lfm2": 12,
    "qwen3_next": 13, "granitemoehybrid": 10, "modernbert-decoder": 13,
}  # fmt: skip
"""Linear layers but the head, routers and what PEFT has no LoRA for, counted by hand from each model's layers."""

EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss", "glm4_moe", "deepseek_v3", "llama4", "granitemoe", "phimoe",
           "qwen3_next", "granitemoehybrid"}  # fmt: skip
"""Those with fused experts."""


def config(kind: str) -> Any:
    """The configuration of a kind."""
    import transformers

    name, values = KINDS[kind]
    return getattr(transformers, f"{name}Config")(**_SPECIAL | values)
