"""TRL's SFTTrainer with three things of our own: the order of batches, the loss, and checkpoints that are whole."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader  # type: ignore[import-untyped]
from torch.utils.data import DataLoader
from trl import SFTTrainer  # type: ignore[attr-defined]

from llmbench.borrowed import replaced
from llmbench.errors import RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.training.distributed import sharding, wrap, zero
from llmbench.training.distributed.ranks import Ranks, current
from llmbench.training.kernels import fused_head, patches
from llmbench.training.loading.adapter import keep_precision
from llmbench.training.loop.batches import Batches, Collator, lengths
from llmbench.training.loop.checkpoint import WholeCheckpoints
from llmbench.training.loop.optimizer import own_optimizer
from llmbench.training.loop.signals import RowLosses

__all__ = ["Trainer"]


class Trainer(WholeCheckpoints, SFTTrainer):
    """Trains on rows of `input_ids` and `labels` in the order of `Batches`."""

    model: Any

    def __init__(self, recipe: TrainRecipe, collator: Collator, *, plain_head: bool = False, **arguments: Any) -> None:
        self.recipe = recipe
        self.plain_head = plain_head
        self.paused = 0.0
        self.row_losses: RowLosses | None = None
        self.ranks = current()
        with keep_precision(arguments["model"]):
            super().__init__(data_collator=collator, **arguments)
        if self.aux_loss_enabled and not self.ranks.alone:
            raise RecipeError(
                "--processes: this mixture of experts learns a balance between them, which is not averaged over processes yet. "
                "Train it with one process"
            )
        self.model_accepts_loss_kwargs = True  # `compute_loss` divides by the learned tokens of the whole step
        fused_head.install(self.model)

    def _loader(self, dataset: Any, batches: Batches) -> Any:
        loader: DataLoader[Any] = DataLoader(dataset.with_format("numpy"), batch_sampler=batches, collate_fn=self.data_collator)
        if not self.ranks.alone:  # dealt already: accelerate would deal once more
            return prepare_data_loader(loader, self.accelerator.device, num_processes=1, process_index=0, put_on_device=True)
        return self.accelerator.prepare(loader)

    def create_optimizer(self, model: Any = None) -> Any:
        """Of the parts, where the model is in parts: now, when a checkpoint's weights are in it."""
        if not self.ranks.alone and self.recipe.distributed.strategy == "fsdp2" and not sharding.is_sharded(self.model):
            sharding.shard(self.model, self.ranks, self.accelerator.device.type)
            self.optimizer = own_optimizer(self.model, self.recipe)
        return super().create_optimizer(model)

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """As the recipe's strategy says and as nothing else does: accelerate would decide by device and environment."""
        if self.ranks.alone:
            return super()._wrap_model(model, training, dataloader)
        if not self.recipe.distributed.stage:
            return wrap.wrapped(self.accelerator, model, self.recipe.distributed)
        return model if zero.stage(model) else self._engine(model)

    def _engine(self, model: Any) -> Any:
        """DeepSpeed's engine around the model, which is stepped in the optimizer's place."""
        settings = zero.configuration(
            self.recipe.distributed.stage,
            batches=self.args.gradient_accumulation_steps,
            max_grad_norm=self.recipe.training.max_grad_norm,
        )
        zero.check(model, self.accelerator)
        inner = self.accelerator.prepare_model(model, evaluation_mode=True)  # its precision, and no wrapper of its choice
        with zero.quiet(self.accelerator.device.type), replaced({patches.SHARED_MEMORY: lambda: None}):
            engine, self.optimizer = zero.started(self.accelerator, inner, self.optimizer, settings)
        return engine

    def get_train_dataloader(self) -> Any:
        """Batches in the recipe's order."""
        return self._loader(self.train_dataset, self.batches(self.ranks))

    def batches(self, ranks: Ranks) -> Batches:
        """A process's share of the batches of an epoch."""
        return Batches(lengths(self.train_dataset), self.recipe, ranks=ranks)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """Every held-out row once."""
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        return self._loader(rows, Batches(lengths(rows), self.recipe, train=False, ranks=self.ranks))

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The mean negative log-likelihood of the learned tokens, over all batches of a step together.

        Padding stands on the right and attention looks left, so no token sees any and no attention mask is needed; rows end
        to end need none either. TRL's own version synchronises with the device three times a step to report accuracy.
        """
        read = {name: value for name, value in inputs.items() if name != "attention_mask"}
        if self.plain_head:
            return self._from_logits(model, read, num_items_in_batch)
        if self.aux_loss_enabled and "cu_seq_lens_q" not in inputs:
            read["attention_mask"] = inputs["attention_mask"]  # padding has no say in how experts are balanced
        outputs = model(**read, use_cache=False, fused_lm_head=True)
        if self.row_losses is not None:
            self.row_losses.take(outputs.log_probs, inputs)
        count = outputs.label_mask.sum() if num_items_in_batch is None else num_items_in_batch
        loss = -outputs.log_probs.sum() / torch.as_tensor(count).clamp(min=1)
        loss = loss * self.accelerator.num_processes if num_items_in_batch is not None else loss
        return loss if outputs.aux_loss is None else loss + self._balance(outputs.aux_loss, num_items_in_batch)

    def _from_logits(self, model: Any, read: dict[str, Any], num_items_in_batch: Any) -> torch.Tensor:
        """The same loss where there is more between the layers and the logits than the head's weights: all logits are kept."""
        labels = read.pop("labels")[:, 1:].flatten()
        logits = model(**read, use_cache=False).logits[:, :-1].flatten(0, 1).float()
        total = torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
        count = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        loss: torch.Tensor = total / torch.as_tensor(count).clamp(min=1)
        return loss * self.accelerator.num_processes if num_items_in_batch is not None else loss

    def _balance(self, aux_loss: torch.Tensor, num_items_in_batch: Any) -> torch.Tensor:
        """The gradient that keeps a mixture's experts evenly used, with the value 0: a loss stays the loss of the tokens.

        Weighted by the model's own `router_aux_loss_coef` and averaged over the batches of a step, as TRL does; its mean is
        logged as `aux_loss`.
        """
        self._metrics["train" if self.model.training else "eval"]["aux_loss"].append(float(aux_loss.detach()))
        batches = self.current_gradient_accumulation_steps if num_items_in_batch is not None else 1
        weighted = self.router_aux_loss_coef * aux_loss / batches
        return weighted - weighted.detach()

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """The mean loss over every learned token of the held-out rows, each counted once."""
        start = time.perf_counter()
        self.model.eval()
        total, count = 0.0, 0
        kept = self.row_losses = RowLosses()
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            for batch in self.get_eval_dataloader(eval_dataset):
                learned = int((batch["labels"][:, 1:] != -100).sum())
                with self.compute_loss_context_manager():
                    total += float(self.compute_loss(self.model_wrapped, batch)) * learned
                count += learned
        self.model.train()
        self.row_losses = None
        if self.run is not None and kept.losses and self.ranks.alone:  # of several processes each has its own rows
            self.run.log_held_out({"step": self.state.global_step, "losses": kept.losses, "tokens": kept.tokens})
        total, tokens = self.ranks.total(total, count)
        loss = total / tokens
        metrics = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_perplexity": math.exp(min(loss, 700.0))}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.paused += time.perf_counter() - start
        return metrics
