"""What a training starts from: the base model. Fields keep the names of transformers."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from llmbench.recipe.fields import ExistingPath, Reference, Section

__all__ = ["ModelSpec"]


class ModelSpec(Section):
    """The base model: a hub name, a folder, or `llmbench/tiny`; or a `config` to start from nothing."""

    model_name_or_path: Reference = "llmbench/tiny"
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Needs a pinned `revision`."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the computation; auto takes bfloat16 where the hardware is faster in it, else float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    attn_implementation: str = "auto"
    """auto takes sdpa where the model has it, else eager."""
    config: dict[str, Any] | None = None
    """For pre-training: the architecture to start from with random weights, as transformers names its fields."""
    tokenizer: ExistingPath | None = None
    """Another tokenizer than the model's own: a folder."""

    @model_validator(mode="after")
    def _remote_code_is_pinned(self) -> Self:
        if not self.trust_remote_code and set(self.attn_implementation) & set("/:|"):
            raise ValueError(
                f"attn_implementation: {self.attn_implementation} names kernels from the hub, which are code. Use sdpa, eager "
                "or flash_attention_2, or allow the code with trust_remote_code and a pinned revision"
            )
        if self.trust_remote_code and self.revision is None:
            raise ValueError("trust_remote_code runs the model's own code: pin a revision (a commit hash) with it")
        return self
