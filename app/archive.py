"""Conversations on the disk: one file each in the workspace, which only this user can read, under an id that the browser keeps.

A browser's own storage is small, may be full or switched off, and its writes are lost when the page goes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from llmbench import workspace
from llmbench.errors import LlmbenchError

from .conversation import Session

__all__ = ["forget", "read", "write"]

_ID = re.compile(r"[0-9a-f]{32}")


def read(key: str, url: str) -> Session:
    """The conversation of this id, or a new one at `url` where there is none, or none that is whole."""
    session = Session(url=url)
    if _ID.fullmatch(key):
        try:
            session = Session.restored(json.loads(_path(key).read_text(encoding="utf-8")), url)
        except (OSError, ValueError):
            pass
        session.id = key
    return session


def write(session: Session) -> str:
    """Keeps the conversation; returns why it could not be kept, or an empty string."""
    if not session.id:
        return ""
    path = _path(session.id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        workspace.write_text(path, json.dumps(session.stored()))
        path.chmod(0o600)
    except (OSError, LlmbenchError) as error:
        return f"This conversation is not saved and will be lost with the page. {error}"
    return ""


def forget(key: str) -> None:
    """Removes the conversation of this id."""
    if _ID.fullmatch(key):
        _path(key).unlink(missing_ok=True)


def _path(key: str) -> Path:
    return workspace.home() / "conversations" / f"{key}.json"
