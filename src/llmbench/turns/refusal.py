"""Why a row or a template cannot be used."""

from __future__ import annotations

__all__ = ["OTHER", "Limit", "Refused"]

OTHER = "Set data.chat_template to one that does"
"""What helps where a template leaves out what a row says."""


class Refused(Exception):
    """A row that this template cannot show: a fixed phrase to count by, and the words."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Limit(Exception):
    """A template that does not come to an end, or that fills the memory."""
