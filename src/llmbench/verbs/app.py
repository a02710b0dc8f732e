"""placeholder"""

from __future__ import annotations

import typer


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
