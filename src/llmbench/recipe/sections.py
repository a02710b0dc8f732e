"""The sections of a training recipe, before anything is asked of them together: what the rules of combination take."""

from __future__ import annotations

from collections.abc import Iterable

from llmbench.recipe.adapter import AdapterSpec, FreezeSpec, LoraSpec, QuantizationSpec, TokenizerSpec
from llmbench.recipe.data import DataSpec
from llmbench.recipe.distributed import DistributedSpec
from llmbench.recipe.evaluation import EvaluationSpec
from llmbench.recipe.fields import Document, Name
from llmbench.recipe.methods import DistillationSpec, DpoSpec, GrpoSpec, KtoSpec, Method, OrpoSpec, RewardSpec
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.optimization import TrainingSpec
from llmbench.recipe.tracking import Tracking, TrackingSpec

__all__ = ["TrainSections", "Unfit"]


class Unfit(ValueError):
    """Sections that do not go together, a line for each fault: `lora.use_dora: ...`."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.lines = tuple(lines)
        super().__init__("\n".join(self.lines))


class TrainSections(Document):
    """One fine-tuning or pre-training run."""

    name: Name
    """The run's name; its folder is outputs/runs/NAME."""
    method: Method = "sft"
    """sft trains the assistant's tokens of a chat model; pretrain starts from random weights where `model.config` is given, and
    otherwise continues a model, on raw text or on conversations.

    dpo and orpo train on pairs of answers, kto on single answers marked good or bad, reward makes a judge of pairs, grpo has
    its own answers judged by functions, distillation takes over a teacher's distribution.
    """
    model: ModelSpec = ModelSpec()
    data: DataSpec
    lora: LoraSpec | None = LoraSpec()
    """null trains all parameters."""
    adapter: AdapterSpec | None = None
    """Instead of `lora`: oft, vera, ia3 or prompt_tuning, as `type` says."""
    adapter_name_or_path: str | None = None
    """Go on from a trained adapter: a run's name, or a folder. Its own settings hold."""
    freeze: FreezeSpec | None = None
    """With `lora: null`: parameters that are not trained."""
    tokenizer: TokenizerSpec | None = None
    """Tokens to add; their rows are trained."""
    quantization: QuantizationSpec | None = None
    training: TrainingSpec = TrainingSpec()
    distributed: DistributedSpec = DistributedSpec()
    """How processes work together where `llmbench train --processes` starts several."""
    evaluation: EvaluationSpec | None = None
    """Questions that the model answers at each evaluation; null measures the held-out loss alone."""
    tracking: Tracking = TrackingSpec()
    """none, or where the run is shown besides its own folder: tensorboard, wandb, mlflow, trackio; several as a list."""
    dpo: DpoSpec | None = None
    """The section of the chosen method is there with its defaults; those of others are null."""
    orpo: OrpoSpec | None = None
    kto: KtoSpec | None = None
    reward: RewardSpec | None = None
    grpo: GrpoSpec | None = None
    distillation: DistillationSpec | None = None

    @property
    def end_to_end(self) -> bool:
        """Whether rows are packed end to end without padding, unless the model turns out not to read them so."""
        spec = self.training
        left_open = spec.padding_free is None and spec.performance == "auto"
        return not self.always_pads and (bool(spec.padding_free) or spec.packing or left_open)

    @property
    def always_pads(self) -> bool:
        """Whether the method's trainer reads what it has padded itself, whatever the model can."""
        return self.method in ("reward", "distillation")

    @property
    def adapts(self) -> bool:
        """Whether something is trained beside a frozen base, so that the run leaves an adapter and not a model."""
        return self.lora is not None or self.adapter is not None
