"""What a server writes down about requests: an access log, traces, and records of conversations; nothing by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from llmbench.recipe.fields import Section, placed
from llmbench.recipe.scalars import Truth

__all__ = ["AccessLog", "AccessLogSpec", "CaptureSpec", "Traces", "TracesSpec"]


def _short_for(field: str, section: type[Section]) -> BeforeValidator:
    """Lets a section be written as `true` (its defaults), `false` (none of it), or the value of one field."""

    def true_or_field(value: Any) -> Any:
        if isinstance(value, Truth):
            return {} if repr(value) == "true" else None
        return {field: value} if isinstance(value, str | Path) else value

    return BeforeValidator(true_or_field, json_schema_input_type=section | bool | str | None)


class AccessLogSpec(Section):
    """One line of JSON for each request."""

    path: Annotated[Path, BeforeValidator(placed)] | None = None
    """The file; without it `access.jsonl` of the workspace."""
    prompts: bool = False
    """Whether messages and answers are written too."""
    max_bytes: Annotated[int, Field(ge=10_000)] = 100_000_000
    """Size from which a new file is begun."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 5
    """Earlier files that stay, as `access.jsonl.1` (the newest) and so on."""


class TracesSpec(Section):
    """Spans of each request, sent to a collector as OTLP over HTTP."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")] | None = None
    """The collector, such as http://localhost:4318; without it what OTEL_EXPORTER_OTLP_ENDPOINT says."""
    share: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Of the requests that bring no trace of their own; one that does is traced as its caller says."""
    prompts: bool = False
    """Whether spans hold messages, passages and answers."""


class CaptureSpec(Section):
    """Records of conversations, to monitor quality with and to make training data from."""

    consent: Literal["opt-in", "opt-out"]
    """Whose requests are kept: of those who send `x-llmbench-capture: yes`, or of everybody who does not send `no`."""
    path: Annotated[Path, BeforeValidator(placed)] | None = None
    """The file; without it `capture.sqlite` of the workspace."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Of the conversations: each is kept whole, or not at all."""
    days: Annotated[int, Field(gt=0)] = 30
    """Until a record is deleted."""
    redact: bool = True
    """Whether keys, e-mail addresses, card numbers and IBANs are replaced before anything is written."""
    keys: list[str] | None = None
    """Names of the keys whose requests may be kept; without it all."""


AccessLog = Annotated[AccessLogSpec | None, _short_for("path", AccessLogSpec)]
Traces = Annotated[TracesSpec | None, _short_for("endpoint", TracesSpec)]
"""As fields of the gateway's section."""
