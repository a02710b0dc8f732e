"""Distillation: the student learns a teacher's whole distribution at every token of an answer, not only the token there.

TRL has two trainers for it. Its DistillationTrainer trains on answers that the student draws, always; GKDTrainer also on the
answers of the data (`lmbda: 0`), which costs no generation and runs on a CPU. This is the second.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl.import_utils import TRLExperimentalWarning

from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import ModelSpec, TrainRecipe
from llmbench.runs import Run
from llmbench.training.loading.model import Loaded, attention, computation_dtype, local_folder
from llmbench.training.loop.batches import Collator
from llmbench.training.loop.record import Recorder
from llmbench.training.methods.arguments import one_gpu
from llmbench.training.methods.judged import Judged, parts, rate, settings
from llmbench.training.methods.method import Method, learned_rows, rows_by_batch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", TRLExperimentalWarning)  # it may change in another version; ours is pinned
    from trl.experimental.gkd import GKDConfig, GKDTrainer

if TYPE_CHECKING:
    from llmbench.training.job import Job

__all__ = ["METHOD"]


class Trainer(Judged, GKDTrainer):
    """TRL's GKDTrainer on our rows."""

    args: Any
    accelerator: Any

    def __init__(self, recipe: TrainRecipe, **parts: Any) -> None:
        super().__init__(recipe, **parts)
        assert recipe.distillation is not None
        # The learned tokens of a whole step are known only while the answers are those of the data.
        self.model_accepts_loss_kwargs = not recipe.distillation.lmbda and not recipe.distillation.seq_kd

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        """The divergence from the teacher per learned token, over all batches of a step together."""
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if num_items_in_batch is None:
            return found
        return found * self.accelerator.num_processes


class _WithPrompts:
    """Batches as for supervised fine-tuning, with the prompts of their last answers (padded on the left) to draw anew."""

    def __init__(self, recipe: TrainRecipe, pad_token_id: int) -> None:
        self.rows = Collator(recipe, pad_token_id)
        self.pad = pad_token_id

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = self.rows(examples)
        prompts = [example["input_ids"][: _last_answer(example["labels"])] for example in examples]
        width = max(map(len, prompts))
        batch["prompts"] = torch.tensor([[self.pad] * (width - len(prompt)) + prompt for prompt in prompts])
        batch["prompt_attention_mask"] = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
        return batch


def _last_answer(labels: list[int]) -> int:
    """Where the last run of learned tokens begins."""
    end = max(i for i, label in enumerate(labels) if label != -100)
    while end > 0 and labels[end - 1] != -100:
        end -= 1
    return end


def trainer(job: Job, run: Run, recorder: Recorder) -> Trainer:
    """TRL's GKDTrainer on rows that are tokenised and marked already."""
    spec, loaded = job.recipe.distillation, job.loaded
    assert spec is not None and job.teacher is not None
    made = Trainer(
        job.recipe,
        **parts(job, recorder),
        teacher_model=job.teacher,
        data_collator=_WithPrompts(job.recipe, loaded.tokenizer.pad_token_id),
        args=one_gpu(GKDConfig(**settings(job, run), **spec.model_dump(exclude={"teacher"}), max_length=None)),
    )
    made.remove_callback(PrinterCallback)
    return made


def teacher(recipe: TrainRecipe, loaded: Loaded) -> Any:
    """The teacher, frozen, beside a student with the same tokens.

    Raises:
        LlmbenchError: not found, not loadable, or with another vocabulary than the student's.
    """
    assert recipe.distillation is not None
    spec = ModelSpec(**recipe.distillation.teacher.model_dump(), device=recipe.model.device)
    folder = local_folder(spec)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=spec.trust_remote_code, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=computation_dtype(spec, loaded.device),
            attn_implementation=attention(recipe.model),
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError) as error:
        raise LlmbenchError(
            f"{spec.model_name_or_path}: the teacher cannot be loaded ({str(error).splitlines()[0]})."
        ) from error
    student, own = (m.config.get_text_config().vocab_size for m in (loaded.model, model))
    if tokenizer.get_vocab() != loaded.tokenizer.get_vocab() or student != own:
        raise RecipeError(
            f"distillation.teacher: {spec.model_name_or_path} has a different vocabulary from "
            f"{recipe.model.model_name_or_path} "
            f"({own:,} tokens against {student:,}), so their distributions cannot be compared. Choose a teacher of the same "
            f"family."
        )
    frozen: Any = model
    return frozen.eval().requires_grad_(False)


def _plan(job: Job) -> list[str]:
    spec, size = job.recipe.distillation, int(job.teacher.num_parameters())
    assert spec is not None
    own = f", {spec.lmbda:.0%} of answers by the student" if spec.lmbda else ""
    named = f"{spec.teacher.model_name_or_path} ({size:,} parameters)"
    return [f"  method  teacher {named}, beta {spec.beta:g}{own}, {rate(job)}"]


METHOD = Method(learned_rows, rows_by_batch, trainer, _plan, teacher=teacher, first="its teacher answers first")
