"""Conversations on the disk: one file each in the workspace, which only this user can read, under an id that the browser keeps.

A browser's own storage is small, may be full or switched off, and its writes are lost when the page goes.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from llmbench import workspace
from llmbench.errors import LlmbenchError

from .conversation import Session

__all__ = ["forget", "read", "write"]

_ID = re.compile(r"[0-9a-f]{32}")
_LOST = "This conversation is not saved: it will be lost when the page closes."


def read(key: str, url: str) -> tuple[Session, str]:
    """The conversation of this id, or a new one at `url` where there is none; and what must be said about it.

    A file that cannot be read, or that another version wrote otherwise, gets another name, so that the new conversation does
    not replace it.
    """
    if not _ID.fullmatch(key):
        return Session(url=url, given=url), ""
    problem = ""
    try:
        path = _path(key)
        session = Session.restored(json.loads(path.read_text(encoding="utf-8")), url)
    except LlmbenchError as error:
        session, problem = Session(url=url, given=url), f"{_LOST} {error}"
    except FileNotFoundError:
        session = Session(url=url, given=url)
    except (OSError, ValueError):
        session = Session(url=url, given=url)
        problem = _set_aside(path)
    session.id = key
    return session, problem


def write(session: Session) -> str:
    """Keeps the conversation; returns why it could not be kept, or an empty string."""
    if not session.id:
        return ""
    try:
        path = _path(session.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.parent.chmod(0o700)
        workspace.write_text(path, json.dumps(session.stored()))
        path.chmod(0o600)
    except (OSError, LlmbenchError) as error:
        return f"{_LOST} {error}"
    return ""


def forget(key: str) -> None:
    """Removes the conversation of this id."""
    if _ID.fullmatch(key):
        with suppress(LlmbenchError):  # nothing is kept where no folder can be
            _path(key).unlink(missing_ok=True)


def _set_aside(path: Path) -> str:
    """Gives a file that cannot be read a name that is free; says so."""
    for n in range(1, 1_000):
        aside = path.with_suffix(f".unreadable-{n}")
        if not aside.exists():
            break
    try:
        path.rename(aside)
    except OSError as error:
        return f"The saved conversation cannot be read: {path} ({error.strerror}). A new one was started."
    return f"The saved conversation cannot be read; a new one was started. The old file is kept: {aside}"


def _path(key: str) -> Path:
    return workspace.home() / "conversations" / f"{key}.json"
