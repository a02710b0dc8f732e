"""What answers cost: a price per token, or the hardware's per hour."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import Section

__all__ = ["PriceSpec", "PricesSpec"]

Price = Annotated[float, Field(ge=0)]


class PriceSpec(Section):
    """Of one variant: per million tokens, or per hour of its hardware."""

    prompt: Price | None = None
    """Of a million tokens that are read."""
    completion: Price | None = None
    """Of a million tokens that are written."""
    hour: Price | None = None
    """Of an hour of the hardware that serves; answers that are in flight together share it."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        tokens = self.prompt is not None or self.completion is not None
        if tokens == (self.hour is not None):
            raise ValueError("give prompt and completion, or hour")
        return self


class PricesSpec(Section):
    """Prices of variants in one currency; the cost of those that are not named is not measured."""

    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    variants: Annotated[dict[str, PriceSpec], Field(min_length=1)]
    """Variant -> its price; `*` stands for all others."""
