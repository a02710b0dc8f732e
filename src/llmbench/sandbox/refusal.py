"""Why a request has no value."""

from __future__ import annotations

__all__ = ["Beyond", "Faulty", "Impossible"]


class Beyond(Exception):
    """It went beyond a limit of time or size; its text is which."""


class Faulty(Exception):
    """Something is wrong with the request itself; its text is what."""


class Impossible(Exception):
    """This machine cannot do it; its text is why."""
