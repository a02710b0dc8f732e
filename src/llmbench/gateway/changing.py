"""What a change of the variants or of the engines asks of what computes the answers, and of the way there."""

from __future__ import annotations

from typing import Protocol

from llmbench.engine import Adapter
from llmbench.parity import Parity

__all__ = ["Cutter", "Engines", "Loader"]


class Loader(Protocol):
    """What changes need of the engine; `Engine` is one."""

    def refuse(self, adapter: Adapter) -> None:
        """Raises EngineError where it can never load this adapter."""
        ...

    def load(self, adapter: Adapter) -> None:
        """Loads it, or raises EngineError and has what it had."""
        ...

    def unload(self, id: str) -> None:
        """Unloads one that no request uses."""
        ...

    def prove(self, adapter: Adapter) -> Parity | None:
        """The verdict on one that it has; None without a certificate."""
        ...


class Engines(Protocol):
    """Engines that run elsewhere and can be changed; `Fleet` is one."""

    @property
    def urls(self) -> list[str]:
        """Where they are."""
        ...

    def add(self, url: str) -> str | None:
        """Has one more; why it has not joined yet. Raises EngineError where it cannot."""
        ...

    def remove(self, url: str, drain: float) -> int:
        """Has one less, whose answers get these seconds. Raises EngineError where no other one answers."""
        ...


class Cutter(Protocol):
    """What a removal needs of the way to the engine."""

    def cut(self, model: str, reason: str) -> None:
        """Ends the answers of one of the engine's models."""
        ...

    def allow(self, model: str) -> None:
        """Lets requests pass to it again."""
        ...
