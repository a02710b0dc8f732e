"""Feedback on an answer: what a request to /v1/feedback says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from llmbench.gateway.api.fields import of_body
from llmbench.gateway.refusal import Refusal

__all__ = ["KINDS", "LONGEST", "METRICS", "FeedbackRequest", "Metric", "answer", "parse"]

Metric = Literal["vote", "judge"]
METRICS: tuple[Metric, ...] = get_args(Metric)
LONGEST = 4000
"""Characters of a comment."""
KINDS = {"request_id": "a text", "metric": "a text", "value": None, "comment": "a text"}
_ID = "send request_id: the x-request-id of the answer"
_VALUE = "send value: true or false, or with metric: judge a number from 0 to 1"
_ELSEWHERE = {
    "inference_id": _ID,
    "trace_id": _ID,
    "run_id": _ID,
    "episode_id": _ID,
    "id": _ID,
    "rating": _VALUE,
    "score": _VALUE,
    "metric_name": "send metric: vote or judge",
    "name": "send metric: vote or judge",
    "key": "send metric: vote or judge",
    "weight": "each answer counts the same",
    "user": "the answer's own counts",
    "model": "request_id names the answer",
}


@dataclass(frozen=True)
class FeedbackRequest:
    """A checked request. `value` is 0 to 1; of a vote 0 or 1."""

    request_id: str
    metric: Metric
    value: float
    comment: str | None = None


def parse(raw: bytes) -> FeedbackRequest:
    """Checks the body of a request.

    Raises:
        Refusal: status 400 with the field that is wrong.
    """
    fields = of_body(raw, KINDS, _ELSEWHERE)
    id, comment = fields.get("request_id"), fields.get("comment")
    value: Any = fields.get("value")
    metric = next((one for one in METRICS if one == fields.get("metric", "vote")), None)
    if metric is None:
        raise Refusal(400, f"metric must be {' or '.join(METRICS)}, not {fields['metric']!r:.40}.", param="metric")
    if id is None:
        raise Refusal(400, "request_id is missing: the x-request-id of the answer.", param="request_id")
    right = isinstance(value, bool) if metric == "vote" else _is_score(value)
    if not right:
        wanted = "true or false" if metric == "vote" else "a number from 0 to 1"
        raise Refusal(400, f"value must be {wanted}, not {json.dumps(value)[:40]}.", param="value")
    if comment is not None and len(comment) > LONGEST:
        raise Refusal(400, f"comment has {len(comment):,} characters; {LONGEST:,} are allowed.", param="comment")
    return FeedbackRequest(id, metric, float(value), comment)


def answer(wanted: FeedbackRequest, *, replaced: bool) -> dict[str, Any]:
    """What is answered; `replaced` is whether the same was given about this request before."""
    value = bool(wanted.value) if wanted.metric == "vote" else wanted.value
    return {
        "object": "feedback", "request_id": wanted.request_id, "metric": wanted.metric, "value": value, "replaced": replaced,
    }  # fmt: skip


def _is_score(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
