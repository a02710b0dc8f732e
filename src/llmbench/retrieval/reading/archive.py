"""Zip files from strangers: what their members would unpack to is bounded before any of it is unpacked."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator

from llmbench.retrieval.documents import LOCKED, NOT_OPENED, UNREAD_CIPHER, Unreadable
from llmbench.retrieval.reading import xml
from llmbench.retrieval.reading.kinds import kind_of, kind_of_bytes

__all__ = ["Archive"]

MEMBERS = 20_000
LARGEST = 128 * 2**20
"""Bytes of one member, unpacked."""
TOTAL = 512 * 2**20
"""Bytes of all members that are read."""
RATIO = 250
"""How much smaller a member of a MiB or more may be than what it unpacks to; the most of 40 real office documents is
13, deflate's limit 1032."""

_AES = 99
"""How a member is said to be compressed that 7-Zip or WinZip encrypted (APPNOTE 7.2); zipfile opens zip's own cipher only."""
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError)
"""What zipfile raises on what it cannot unpack."""


class Archive:
    """A zip file in memory. Members are read one by one, by their names; nothing is ever written to disk.

    A password opens members with zip's own encryption; an empty one is none.

    Raises:
        Unreadable: it is broken, or has too many members.
    """

    def __init__(self, data: bytes, password: str = "") -> None:
        self._password = password.encode() or None
        try:
            self._zip = zipfile.ZipFile(io.BytesIO(data))
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise Unreadable(f"broken or cut off ({error})") from None
        members = self._zip.infolist()
        if len(members) > MEMBERS:
            raise Unreadable(f"a zip file of more than {MEMBERS:,} members")
        self.names = {member.filename: member for member in members}
        self._left = TOTAL

    def read(self, name: str) -> bytes:
        """One member.

        Raises:
            Unreadable: it is missing, encrypted, broken, or unpacks to too much.
        """
        member = self.names.get(name)
        if member is None:
            raise Unreadable(f"broken: it has no {name}")
        if member.compress_type == _AES:
            raise Unreadable(UNREAD_CIPHER)
        if member.flag_bits & 1 and self._password is None:
            raise Unreadable(LOCKED)
        size = member.file_size
        if size > min(LARGEST, self._left) or (size > 2**20 and size > RATIO * max(member.compress_size, 1)):
            raise Unreadable(f"possibly a zip bomb: {name[:80]} unpacks to {size:,} bytes")
        self._left -= size
        try:
            with self._zip.open(member, pwd=self._password) as stream:
                data = stream.read(size + 1)
        except _BROKEN as error:
            if member.flag_bits & 1 and "password" in str(error).lower():
                raise Unreadable(NOT_OPENED) from None
            raise Unreadable(f"broken: {name[:80]} cannot be unpacked ({error})") from None
        if len(data) > size:
            raise Unreadable(f"possibly a zip bomb: {name[:80]} is larger than its header says")
        return data

    def files(self) -> Iterator[tuple[str, bytes | Unreadable]]:
        """Name and bytes of every file in it that may be read, one after another, or why it cannot be unpacked."""
        for name, member in self.names.items():
            path = name.replace("\\", "/")
            if member.is_dir() or any(part.startswith((".", "__MACOSX")) for part in path.split("/")):
                continue
            try:
                if kind_of(path.rpartition("/")[2])[0] or kind_of_bytes(path, self.head(name)):
                    yield path, self.read(name)
            except Unreadable as error:
                yield path, error

    def head(self, name: str, size: int = 1024) -> bytes:
        """The first bytes of a member; nothing where it cannot be unpacked."""
        try:
            with self._zip.open(self.names[name], pwd=self._password) as stream:
                return stream.read(size)
        except _BROKEN:
            return b""

    def tree(self, name: str) -> xml.Element:
        """One member as XML."""
        return xml.tree(self.read(name), name)
