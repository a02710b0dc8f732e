"""What a format is. One class each has this, in a module of its own, with an entry in `formats.FORMATS`."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from llmbench.exporting.material import Material
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Allowance, Heard, Probes

__all__ = ["Format"]


class Format(Protocol):
    """A format that runs are exported in."""

    name: str
    """As its entry in `formats.FORMATS` says."""

    def refuse(self, source: Exportable, precision: str) -> None:
        """Raises LlmbenchError, before anything is loaded, for what cannot be written in this format."""
        ...

    def room(self, source: Exportable, precision: str) -> int:
        """About how many bytes its folder takes, without the material that it is made from."""
        ...

    def write(self, material: Material, folder: Path, precision: str) -> None:
        """Writes its files into an empty folder.

        Raises:
            LlmbenchError: it cannot be written; nothing is kept.
        """
        ...

    def read_back(self, material: Material, folder: Path, probes: Probes, precision: str) -> Heard:
        """What the files in the folder say, read as their users will.

        Raises:
            LlmbenchError: they cannot be read; this is a failed proof, and the folder is kept apart.
        """
        ...

    def expected_bytes(self, material: Material, precision: str) -> int:
        """The weights' bytes in this format; the files' must be within a quarter of it (and 2 MB for what else they hold)."""
        ...

    def weight_files(self, folder: Path) -> list[Path]:
        """The files that hold the weights."""
        ...

    def tolerance(self, precision: str) -> Allowance:
        """What the proof allows; that of the trained model's own precision is added where it is coarser."""
        ...

    def usage(self, name: str, precision: str) -> str:
        """How to use the folder, in Markdown, for the model card. `name` is the folder's."""
        ...
