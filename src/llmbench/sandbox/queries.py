"""Queries of SQLite, run on a database that they can only read, and compared by what they return."""

from __future__ import annotations

import re
import sqlite3
import time
from collections import Counter
from functools import lru_cache
from typing import Any

from llmbench.sandbox.refusal import Beyond, Faulty

__all__ = ["same"]

ROWS = 100_000
"""Rows that a query may return."""
VALUE = 4 * 2**20
"""Bytes of one value."""
_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the clock."""
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, 33}  # 33: SQLITE_RECURSIVE
_BUILDING = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}
_CODE = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[^\]]*\]|--[^\n]*|/\*.*?\*/", re.DOTALL)
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
Rows = list[tuple[Any, ...]]


def same(request: dict[str, Any]) -> bool:
    """Whether a query returns what one of the right ones does: the same rows as often, in any order.

    The order counts where the right query has an ORDER BY of its own, outside parentheses. The names of columns do not count,
    their order does. Numbers are equal up to ten digits, NULL is equal to NULL.

    Args:
        request: `query` (None: the right ones are only run), `right` (a list), `seconds`, and `file`, a database, or `script`.

    Raises:
        Faulty: a right query, or the database, is broken. A broken `query` is merely not the same.
    """
    database = _database(request.get("file"), request.get("script"))
    wanted = []
    for right in request["right"]:
        try:
            wanted.append((_ordered(right), _rows(database, right, request["seconds"] / 2)))
        except sqlite3.Error as error:
            raise Faulty(f"the right query fails ({error})") from error
    if request.get("query") is None:
        return True
    try:
        found = _rows(database, request["query"], request["seconds"] / 2)
    except (sqlite3.Error, sqlite3.Warning, ValueError):
        return False
    return any(_equal(found, rows, ordered) for ordered, rows in wanted)


@lru_cache(maxsize=4)
def _database(file: str | None, script: str | None) -> sqlite3.Connection:
    """A connection that reads and does nothing else from now on."""
    try:
        if file is not None:
            from pathlib import Path

            database = sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro&immutable=1", uri=True)
        else:
            database = sqlite3.connect(":memory:")
            database.set_authorizer(lambda action, *_: sqlite3.SQLITE_DENY if action in _BUILDING else sqlite3.SQLITE_OK)
            database.executescript(script or "")
        database.execute("PRAGMA trusted_schema = OFF")
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        raise Faulty(f"the database cannot be made ({error})") from error
    database.text_factory = lambda data: data.decode("utf-8", "replace")
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE)
    database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    database.set_authorizer(_reads_only)
    return database


def _reads_only(action: int, first: str | None, second: str | None, *_: Any) -> int:
    wild = action == sqlite3.SQLITE_FUNCTION and second == "load_extension"
    return sqlite3.SQLITE_OK if action in _READING and not wild else sqlite3.SQLITE_DENY


def _rows(database: sqlite3.Connection, query: str, seconds: float) -> Rows:
    end = time.process_time() + seconds
    database.set_progress_handler(lambda: time.process_time() > end, _STEPS)
    cursor = database.cursor()
    try:
        rows = cursor.execute(query.strip().rstrip(";")).fetchmany(ROWS + 1)
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            raise Beyond(f"a query takes over {seconds:g} seconds") from error
        raise
    finally:
        cursor.close()
        database.set_progress_handler(None, 0)
    if len(rows) > ROWS:
        raise Beyond(f"a query returns more than {ROWS:,} rows")
    return [tuple(map(_plain, row)) for row in rows]


def _plain(value: Any) -> Any:
    """A number by ten digits, bytes by themselves: 0.1 + 0.2 is 0.3, and 1 is 1.0."""
    return float(f"{value:.10g}") if isinstance(value, float) else value


def _ordered(query: str) -> bool:
    """Whether a query has an ORDER BY outside parentheses, texts and comments."""
    text = _CODE.sub(" ", query)
    while (shorter := re.sub(r"\([^()]*\)", " ", text)) != text:
        text = shorter
    return _ORDER.search(text) is not None


def _equal(found: Rows, wanted: Rows, ordered: bool) -> bool:
    return found == wanted if ordered else Counter(found) == Counter(wanted)
