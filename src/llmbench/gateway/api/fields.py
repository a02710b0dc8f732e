"""The fields of a request: each does something, or is refused by name with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from llmbench.gateway import body as body_of
from llmbench.gateway.refusal import Refusal

__all__ = ["model_of", "of_body", "refuse"]


def of_body(raw: bytes, kinds: Mapping[str, str | None], elsewhere: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a body that say something.

    Args:
        raw: the body.
        kinds: what each known field must be, as `body.check_type` names it; None is checked by whoever reads it.
        elsewhere: why fields that clients know from other servers do nothing here, or what to use in their place.

    Raises:
        Refusal: status 400: a field is unknown or of another kind, or the body is no JSON object.
    """
    fields = {key: value for key, value in body_of.read(raw).items() if value is not None}
    refuse(fields, kinds, elsewhere)
    checked = {key: kind for key, kind in kinds.items() if kind is not None}
    known = {key: value for key, value in fields.items() if key in checked}
    body_of.check_types(known, checked)
    return fields | known


def refuse(fields: Mapping[str, Any], known: Collection[str], elsewhere: Mapping[str, str], place: str = "") -> None:
    """Refuses the first field that is not known; `place` is the object that holds it."""
    for key in fields:
        if key not in known:
            name = f"{place}{key}"[:100]
            why = f": {elsewhere[name]}" if name in elsewhere else ""
            raise Refusal(400, f"{name} is not accepted here{why}.", param=name, code="unknown_parameter")


def model_of(fields: dict[str, Any]) -> str:
    """Takes the model out of the fields."""
    model = fields.pop("model", None)
    if not isinstance(model, str):
        raise Refusal(400, "model is missing: name one from /v1/models.", param="model")
    return model
