"""Optimizers that transformers does not make by itself: LoRA+, and Muon with AdamW as one that can be checkpointed."""

from __future__ import annotations

from typing import Any

import torch

from llmbench.recipe import TrainingSpec, TrainRecipe

__all__ = ["MuonWithAdamW", "own_optimizer"]


def own_optimizer(model: Any, recipe: TrainRecipe) -> torch.optim.Optimizer | None:
    """Muon or LoRA+, where the recipe asks for them; None leaves the choice to transformers."""
    spec = recipe.training
    if spec.optim == "muon":
        return MuonWithAdamW(model, spec)
    if recipe.lora is None or recipe.lora.loraplus_lr_ratio is None:
        return None
    from peft.optimizers import create_loraplus_optimizer

    return create_loraplus_optimizer(
        model,
        torch.optim.AdamW,
        lr=spec.learning_rate,
        loraplus_lr_ratio=recipe.lora.loraplus_lr_ratio,
        loraplus_weight_decay=spec.weight_decay,
        loraplus_lr_embedding=spec.learning_rate,  # PEFT's default, 1e-6, would leave LoRA on an embedding as it is
        betas=(0.9, spec.adam_beta2),
        fused=spec.optim == "adamw_torch_fused",
    )


class MuonWithAdamW(torch.optim.Optimizer):
    """Orthogonalised updates for 2-D hidden weights, AdamW without decay for embeddings, the head and vectors.

    Both share the learning rate: `match_rms_adamw` scales Muon's updates to the size of AdamW's (Liu et al. 2025,
    arXiv 2502.16982). In one run each, AdamW untuned, a 2.9M-parameter reader copied after 0.6M tokens with it and not
    after 2M with AdamW.
    """

    def __init__(self, model: torch.nn.Module, spec: TrainingSpec) -> None:
        matrices: list[torch.nn.Parameter] = []
        others: list[torch.nn.Parameter] = []
        embeddings = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
        head = getattr(model, "get_output_embeddings", lambda: None)()
        if head is not None:
            embeddings.add(id(head.weight))
        for parameter in model.parameters():
            if parameter.requires_grad:
                hidden = parameter.ndim == 2 and id(parameter) not in embeddings
                (matrices if hidden else others).append(parameter)
        self.parts: dict[str, torch.optim.Optimizer] = {}
        if matrices:
            self.parts["muon"] = torch.optim.Muon(
                matrices,
                lr=spec.learning_rate,
                weight_decay=spec.weight_decay,
                momentum=0.95,
                adjust_lr_fn="match_rms_adamw",
            )
        if others:
            self.parts["adamw"] = torch.optim.AdamW(
                others, lr=spec.learning_rate, betas=(0.9, spec.adam_beta2), weight_decay=0.0
            )
        super().__init__([*matrices, *others], {"lr": spec.learning_rate})
        self._share()

    def _share(self) -> None:
        """Shows the parts' own groups as this optimizer's, so that a scheduler which sets `lr` reaches both."""
        self.param_groups = [group for part in self.parts.values() for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Steps both."""
        for part in self.parts.values():
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of both, by name."""
        return {name: part.state_dict() for name, part in self.parts.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the state of both."""
        for name, part in self.parts.items():
            part.load_state_dict(state_dict[name])
        self._share()
