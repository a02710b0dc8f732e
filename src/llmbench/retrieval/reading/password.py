"""Passwords of encrypted documents: named in the pipeline, held by the environment, handed to the reader and kept nowhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from llmbench.errors import DataError
from llmbench.recipe import STDIN, RagRecipe, SourceSpec

__all__ = ["need_passwords", "password_at", "password_of"]


def password_of(place: SourceSpec) -> str:
    """The password for the files of a place; empty where it names none, or the variable is not set."""
    return os.environ.get(place.password_env, "") if place.password_env else ""


def password_at(places: Sequence[SourceSpec], path: Path) -> str:
    """The password for a file that lies in one of the places, or in several, of which the last counts."""
    for place in reversed(places):
        root = place.path.resolve() if place.path != STDIN else None
        if root is not None and (path == root or path.is_relative_to(root)):
            return password_of(place)
    return ""


def need_passwords(recipe: RagRecipe) -> None:
    """Says before anything is read which variable is missing.

    Raises:
        DataError: a place names a variable that is not set.
    """
    for at, place in enumerate(recipe.documents):
        if place.password_env and not password_of(place):
            raise DataError(
                f"{recipe.source}: documents[{at}].password_env: the environment variable {place.password_env} is not set. "
                f"Run: read -rs {place.password_env} && export {place.password_env}"
            )
