"""Where a training's figures are shown besides its own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from llmbench.recipe.fields import Section, all_different

__all__ = ["Tracker", "Tracking", "TrackingSpec"]

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class TrackingSpec(Section):
    """Trackers that a run is shown in while it trains. Its folder holds everything without them.

    `tracking: mlflow` and `tracking: [mlflow, tensorboard]` stand for `to`; `tracking: none` is no tracker.
    """

    to: Annotated[list[Tracker], AfterValidator(all_different)] = []
    """Which server each one talks to, and with what key, is what its own environment variables say: MLFLOW_TRACKING_URI,
    WANDB_API_KEY, TRACKIO_SERVER_URL and so on. Without them everything stays in outputs/tracking/."""
    project: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")] = "llmbench"
    """The project; MLflow calls it an experiment."""
    log_model: bool = False
    """Whether the adapter (or the model) goes to wandb and mlflow too, when the training has ended."""
    python: Path | None = None
    """A Python that has the trackers, where this one has not: full MLflow cannot be installed beside llmbench."""


def _as_section(value: Any) -> Any:
    """`none`, a name or a list of names as the section that they stand for."""
    if value is None or value == "none":
        return {}
    if isinstance(value, str):
        return {"to": [value]}
    return {"to": value} if isinstance(value, list) else value


Tracking = Annotated[
    TrackingSpec,
    BeforeValidator(_as_section, json_schema_input_type=TrackingSpec | list[Tracker] | Tracker | Literal["none"] | None),
]
