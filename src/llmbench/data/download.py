"""Files of the web: downloaded once into the cache, by address, and asked for again only to hear whether they changed."""

from __future__ import annotations

import hashlib
import json
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from llmbench import workspace
from llmbench.data.packed import ending
from llmbench.errors import DataError

__all__ = ["fetch", "fetched"]

_SECONDS = 30.0
_CHUNK = 1 << 20
_NOTE = ".download.json"
"""What the server said of a file, next to it, under a name that no file gets."""
_LONGEST = 100
"""Characters of an address's last part that stay in the file's name, its ending among them."""


@cache
def fetched(url: str) -> Path:
    """The file at an address; a process asks for it once.

    Raises:
        DataError: it cannot be had, and was not downloaded before.
        LlmbenchError: the cache cannot be written.
    """
    with httpx.Client(follow_redirects=True, max_redirects=5, timeout=_SECONDS) as client:
        return fetch(url, client)


def fetch(url: str, client: httpx.Client) -> Path:
    """The file at an address, from the cache where the server says that it is unchanged, or cannot be reached.

    Args:
        url: checked by the recipe: https, or http on this machine.
        client: follows redirections.

    Raises:
        DataError: it cannot be had, and was not downloaded before.
        LlmbenchError: the cache cannot be written.
    """
    name = Path(unquote(urlsplit(url).path)).name.lstrip(".")[-_LONGEST:] or "data"
    folder = workspace.cache() / "downloads" / hashlib.sha256(url.encode()).hexdigest()[:32]
    target, note = folder / name, folder / _NOTE
    known = json.loads(note.read_text(encoding="utf-8")) if target.exists() and note.exists() else {}
    asked = {}
    if known.get("etag"):
        asked["If-None-Match"] = known["etag"]
    elif known.get("modified"):
        asked["If-Modified-Since"] = known["modified"]
    try:
        with client.stream("GET", url, headers={"Accept-Encoding": "identity", **asked}) as answer:
            if answer.status_code == httpx.codes.NOT_MODIFIED and known:
                return target
            if answer.url.scheme != "https" and answer.url.host not in ("localhost", "127.0.0.1", "::1"):
                raise DataError(
                    f"{url}: redirects to {answer.url.scheme}://{answer.url.host}, which is not encrypted. Download it "
                    f"yourself."
                )
            if answer.is_error:
                raise DataError(f"{url}: the server answered {answer.status_code} {answer.reason_phrase}. Check the address.")
            kind = answer.headers.get("content-type", "")
            if kind.startswith("text/html") and ending(target) != ".html":
                raise DataError(f"{url}: is a web page, not a data file. Use the address of the file itself (raw).")
            # Some servers pack what they send although they are asked not to; the length is then that of the packed bytes.
            packed = answer.headers.get("content-encoding", "identity") != "identity"
            wanted, size = None if packed else answer.headers.get("content-length"), 0
            with workspace.atomic(target, "wb") as file:
                for chunk in answer.iter_bytes(_CHUNK):
                    size += len(chunk)
                    file.write(chunk)
                if wanted is not None and int(wanted) != size:
                    raise DataError(f"{url}: received {size:,} of {int(wanted):,} bytes. Try again.")
            workspace.write_json(
                note, {"url": url, "etag": answer.headers.get("etag"), "modified": answer.headers.get("last-modified")}
            )
            return target
    except httpx.HTTPError as error:
        if known:
            print(f"{url}: cannot be reached ({type(error).__name__}); using the copy downloaded before.", file=sys.stderr)
            return target
        raise DataError(
            f"{url}: cannot be reached ({type(error).__name__}). Check the network, or download it and use the file as path."
        ) from error
