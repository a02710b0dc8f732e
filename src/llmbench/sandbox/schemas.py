"""JSON schemas, whose patterns may take for ever."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from llmbench.sandbox.refusal import Faulty

__all__ = ["check"]


def check(request: dict[str, Any]) -> bool:
    """Whether a value fits a schema (draft 2020-12, or the one that its `$schema` names). No `$ref` is fetched from anywhere.

    Args:
        request: `schema` and `value`; without `value`, whether the schema is one.
    """
    validator = _validator(json.dumps(request["schema"]))
    return True if "value" not in request else bool(validator.is_valid(request["value"]))


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator, SchemaError, validators  # type: ignore[import-untyped]
    from referencing import Registry

    value = json.loads(schema)
    kind = validators.validator_for(value, default=Draft202012Validator)
    try:
        kind.check_schema(value)
    except SchemaError as error:
        raise Faulty(f"not a JSON schema ({str(error.message)[:200]})") from error
    return kind(value, registry=Registry())
