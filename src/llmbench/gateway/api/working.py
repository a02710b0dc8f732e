"""Work with a pipeline, whose errors become refusals."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import TypeVar

from llmbench.errors import IndexError_, LlmbenchError
from llmbench.gateway.grounding import Grounding
from llmbench.gateway.pipeline import Searching
from llmbench.gateway.refusal import Refusal

__all__ = ["working"]

T = TypeVar("T")


async def working(grounding: Grounding, work: Callable[[Searching, Event], T], param: str) -> T:
    """What some work with a pipeline gives.

    Args:
        grounding: the pipeline.
        work: what is done in one of its threads. The event is set when nobody waits for it any longer, as its client has left.
        param: the field that an error is about.

    Raises:
        Refusal: status 503: the index cannot be read; 400: the pipeline cannot do this.
    """
    stop = Event()
    try:
        return await grounding.use(lambda pipeline: work(pipeline, stop))
    except IndexError_ as error:
        raise Refusal(503, str(error), code="retrieval_unavailable") from error
    except LlmbenchError as error:
        raise Refusal(400, str(error), param=param) from error
    finally:
        stop.set()
