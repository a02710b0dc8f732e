"""What a person says of a run: a note, tags, and whether it is archived. labels.json in the run's folder holds them.

The training neither reads nor writes it, so they stay when a run is resumed. A run that is replaced with --overwrite loses
them: they were said of the training that is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from llmbench import workspace
from llmbench.errors import RunError
from llmbench.runs.run import LABELS, Run

__all__ = ["Labels", "archive", "note", "read", "tag"]


@dataclass(frozen=True)
class Labels:
    """The note (empty: none), the tags in the order in which they were added, and whether the run is archived."""

    note: str = ""
    tags: tuple[str, ...] = ()
    archived: bool = False


def read(run: Run) -> Labels:
    """The labels of a run; those of one that has none are empty.

    Raises:
        RunError: labels.json is damaged.
    """
    path = run.folder / LABELS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Labels(str(found["note"]), tuple(map(str, found["tags"])), bool(found["archived"]))
    except FileNotFoundError:
        return Labels()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read ({type(error).__name__}). Remove the file to drop the run's labels.") from error


def note(run: Run, text: str) -> Labels:
    """Sets the note; an empty text removes it."""
    return _write(run, replace(read(run), note=text.strip()))


def tag(run: Run, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Labels:
    """Adds tags and removes others.

    Raises:
        LlmbenchError: a name that no tag may have.
        RunError: a tag to remove that the run does not have; nothing was changed.
    """
    before, away = read(run), list(remove)
    for name in add:
        workspace.check_name(name, "tag")
    missing = [name for name in away if name not in before.tags]
    if missing:
        known = ", ".join(before.tags) or "none"
        raise RunError(f"Run {run.name} has no tag {missing[0]} (its tags: {known}). Nothing was changed.")
    return _write(run, replace(before, tags=tuple(t for t in dict.fromkeys([*before.tags, *add]) if t not in away)))


def archive(run: Run, archived: bool = True) -> Labels:
    """Takes a run out of the lists, or puts it back. All its files stay as they are.

    Raises:
        RunError: it is training.
    """
    if archived and run.state == "running":
        raise RunError(f"Run {run.name} is training. Stop it first: llmbench runs stop {run.name}")
    return _write(run, replace(read(run), archived=archived))


def _write(run: Run, labels: Labels) -> Labels:
    path = run.folder / LABELS
    if labels == Labels():
        path.unlink(missing_ok=True)
    else:
        workspace.write_json(path, {"note": labels.note, "tags": list(labels.tags), "archived": labels.archived})
    return labels
