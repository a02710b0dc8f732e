"""Where data files come from that llmbench wrote: a record for each, found again by the file's content under any name.

LLMBENCH_HOME/made/SHA256.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llmbench import provenance, workspace

__all__ = ["of", "record"]


def record(file: Path, by: str, **facts: Any) -> None:
    """Notes what a file was made by and from.

    Args:
        file: as it has been written.
        by: the verb, such as `raft`.
        facts: JSON values.
    """
    workspace.write_json(_place(provenance.file_hash(file)), {"by": by, "file": str(file.absolute()), **facts})


def of(sha256: str) -> dict[str, Any] | None:
    """What a file with this content was made by; None where nothing is recorded."""
    try:
        found = json.loads(_place(sha256).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and "by" in found else None


def _place(sha256: str) -> Path:
    return workspace.home() / "made" / f"{sha256}.json"
