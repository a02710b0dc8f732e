"""A recipe's data source -> its rows: the files of a folder, a query's result, a hub data set, or generated lessons."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from llmbench import own_code
from llmbench.data import download, folders
from llmbench.data.files import Fault, Row, read_file
from llmbench.data.folders import Chosen
from llmbench.errors import DataError
from llmbench.recipe import DataSource
from llmbench.rows import repeated

__all__ = ["chosen", "files", "hub", "read", "rows", "title"]

_DATABASES = (".db", ".sqlite", ".sqlite3")
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_CONNECT_SECONDS = 5.0


def rows(source: DataSource) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a source with its place (`file:line`), columns renamed as the source says, `limit` kept.

    Raises:
        DataError: the source cannot be read, or the first row that is broken.
    """
    for row in read(source):
        if row.fault is not None:
            raise DataError(f"{row.place}: {row.fault.detail}")
        yield row.place, row.values


def read(source: DataSource) -> Iterator[Row]:
    """The same rows, the broken ones among them with their fault."""
    found = _origin(source)
    if source.formatting is not None:
        found = _formatted(found, source.formatting)
    if source.columns:
        found = (_renamed(row, source.columns) for row in found)
    return found if source.limit is None else islice(found, source.limit)


def title(source: DataSource) -> str:
    """What a source is called in messages."""
    if source.lessons is not None:
        return f"lessons {source.lessons.stage}"
    return str(source.path or source.url or source.dataset)


def files(source: DataSource) -> list[Path]:
    """The files of a source, in the order in which they are read.

    Raises:
        DataError: there is none that llmbench reads, or no such split.
    """
    return list(chosen(source).files)


def chosen(source: DataSource) -> Chosen:
    """The files of a source with what was passed over; those of an address are downloaded first.

    Raises:
        DataError: as `files`, or the address cannot be read.
    """
    path = source.path
    if source.url is not None:
        return Chosen((download.fetched(source.url),))
    if path is None:
        return Chosen(())
    if not path.is_dir() and path.exists():
        return Chosen((path,))
    if path.is_dir():
        found = [file for file in path.rglob("*") if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    else:
        found = list(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
    return folders.choose(path, found, source.split)


def _origin(source: DataSource) -> Iterator[Row]:
    if source.lessons is not None:
        return _taught(source)
    if source.dataset is not None:
        return _hub_rows(source)
    if source.path is not None and source.path.suffix.lower() in _DATABASES:
        return _queried(source.path, source.query)
    return _of_files(source)


def _of_files(source: DataSource) -> Iterator[Row]:
    """The rows of all files; their numbers go on from file to file."""
    before = 0
    for path in files(source):
        number = 0
        for row in read_file(path, encoding=source.encoding, field=source.field):
            number = row.number
            place = row.place if source.url is None else row.place.replace(str(path), source.url, 1)
            yield row._replace(number=before + number, place=place)
        before += number


def _taught(source: DataSource) -> Iterator[Row]:
    """The conversations that llmbench writes itself, drawn anew from their seed."""
    from llmbench.tiny import lessons

    spec = source.lessons
    assert spec is not None
    talks = islice(lessons.conversations(spec.stage, spec.seed, budget=spec.characters), spec.conversations)
    for number, talk in enumerate(talks, 1):
        yield Row(number, f"lessons {spec.stage}: row {number}", {"messages": talk})


def _queried(path: Path, query: str | None) -> Iterator[Row]:
    """The rows that a SELECT finds. The database is opened read-only, and nothing but reading is permitted."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if query is None:
                tables = [
                    name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
                ]
                raise DataError(f"{path}: is a database. Add query: SELECT ... next to its path. Tables: {', '.join(tables)}.")
            connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
            cursor = connection.execute(query)
            names = [column[0] for column in cursor.description or ()]
            if twice := repeated(names):
                raise DataError(f"{path}: the query names the column {twice} twice. Rename one with AS.")
            for number, values in enumerate(cursor, 1):
                yield Row(number, f"{path}: row {number}", dict(zip(names, values, strict=True)))
    except (sqlite3.Error, sqlite3.Warning) as error:
        hint = " Only SELECT is permitted." if "authoriz" in str(error) or "prohibited" in str(error) else ""
        raise DataError(f"{path}: the query failed: {error}.{hint}") from error


def hub(source: DataSource) -> Any:
    """The data set of a hub, downloaded or from its cache.

    Raises:
        DataError: there is no such data set, or it cannot be reached and is not in the cache.
    """
    import datasets  # type: ignore[import-untyped]
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    name, where, before = source.dataset, constants.ENDPOINT, constants.HF_HUB_OFFLINE
    reachable = _answers(where)
    datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = not reachable
    try:
        return datasets.load_dataset(name, source.name, split=source.split, revision=source.revision)
    except (datasets.exceptions.DatasetNotFoundError, ConnectionError, FileNotFoundError, HfHubHTTPError) as error:
        if not reachable:
            raise DataError(
                f"data set {name}: not in the cache, and {where} cannot be reached. Check the network, or give a path."
            ) from error
        raise DataError(f"data set {name}: not found on {where} ({_first(error)}). Check the name, or give a path.") from error
    except (ValueError, OSError) as error:
        raise DataError(f"data set {name}: {_first(error)}") from error
    finally:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = before


def _hub_rows(source: DataSource) -> Iterator[Row]:
    number = 0
    for batch in hub(source).with_format("arrow").iter(batch_size=1000):
        for values in batch.to_pylist():
            number += 1
            yield Row(number, f"{source.dataset} {source.split}: row {number}", values, filled=True)


def _answers(url: str) -> bool:
    """Whether the hub (or the proxy on the way to it) takes a connection within seconds; its client tries for minutes."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    try:
        with socket.create_connection(
            (parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)), timeout=_CONNECT_SECONDS
        ):
            return True
    except OSError:
        return False


def _renamed(row: Row, columns: dict[str, str]) -> Row:
    """The row under the standard names."""
    if row.fault is not None:
        return row
    for standard, name in columns.items():
        if name not in row.values:
            detail = f"has no column {name} to use as {standard}. {_near(name, row.values, columns)}"
            return row._replace(values={}, fault=Fault("a column is missing", detail))
    gone = columns.keys() | set(columns.values())
    kept = {key: value for key, value in row.values.items() if key not in gone}
    return row._replace(values=kept | {standard: row.values[name] for standard, name in columns.items()})


def _near(name: str, values: dict[str, Any], columns: dict[str, str]) -> str:
    """What there is in place of a column: one that differs by blanks or case alone, or all of them."""
    alike = next((key for key in map(str, values) if key.strip().casefold() == name.strip().casefold()), None)
    if alike is not None:
        space = "spaces" if alike.strip() == name.strip() else "capitals"
        return f"It has {alike!r}, which differs in {space}: write it the same way in `columns`, or rename it in the file."
    missing = [key for key in columns.values() if key not in values]
    more = f" (missing too: {', '.join(key for key in missing if key != name)})" if len(missing) > 1 else ""
    return f"Available: {', '.join(map(str, values))}{more}."


def _formatted(rows: Iterator[Row], reference: str) -> Iterator[Row]:
    """What the user's function makes of each row. Several from one keep its place."""
    function, path = own_code.load(reference)
    name = reference.rpartition(":")[2]
    for row in rows:
        if row.fault is not None:
            yield row
            continue
        try:
            made = function(row.values)
        except Exception as error:
            where, said = own_code.line(error, path), f"{type(error).__name__}: {error}"
            yield row._replace(values={}, fault=Fault("formatting failed", f"{name} failed at {where} ({said})"))
            continue
        several = made if isinstance(made, (list, tuple)) else [made]
        if not several or not all(isinstance(one, dict) for one in several):
            what = "nothing" if made is None or not several else f"{type(made).__name__}"
            detail = f"{name} of {path} returned {what}; it should return a row (a dict) or a list of rows"
            yield row._replace(values={}, fault=Fault("formatting gave no row", detail))
            continue
        for one in several:
            yield row._replace(values=one)


def _first(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
