"""What an answer says that has none."""

from __future__ import annotations

__all__ = ["ABSTENTION"]

ABSTENTION = (
    r"\b(not (stated|told)|not in the (handbook|documents|passages|context)|(does|do) not say|(don.t|do not) know|"
    r"not mentioned|cannot answer)\b"
)
"""Tells an answer that says it has none; comparisons and the gateway's counts share it. Case does not matter."""
