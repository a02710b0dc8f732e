"""Office files with a password: what they are without it (MS-OFFCRYPTO), decrypted in memory by msoffcrypto-tool."""

from __future__ import annotations

import io

from llmbench.retrieval.documents import LOCKED, NOT_OPENED, Unreadable

__all__ = ["decrypted"]


def decrypted(data: bytes, password: str) -> bytes:
    """The file without its encryption; a file that has none, or none that is opened here, as it is. An empty password is none.

    Raises:
        Unreadable: it is encrypted, and the password is missing or wrong.
    """
    import olefile

    try:
        with olefile.OleFileIO(io.BytesIO(data)) as ole:
            packed, sheets = ole.exists("EncryptedPackage"), ole.exists("Workbook")
            about = ole.openstream("EncryptionInfo").read() if packed else b""
    except Exception:  # olefile raises many things on broken files, which their reader names
        return data
    if not packed and not (sheets and password):  # the reader of XLS tells of a missing password
        return data
    if not password:
        raise Unreadable(LOCKED)
    if b"<!" in about.replace(b"\0", b""):  # it is parsed as XML (UTF-16 too), where declarations are attacks
        raise Unreadable("broken: the description of its encryption declares entities")
    return _opened(data, password)


def _opened(data: bytes, password: str) -> bytes:
    import msoffcrypto
    from msoffcrypto import exceptions

    out = io.BytesIO()
    try:
        file = msoffcrypto.OfficeFile(io.BytesIO(data))
        if not file.is_encrypted():
            return data
        file.load_key(password=password)
        file.decrypt(out)
    except exceptions.InvalidKeyError:
        raise Unreadable(NOT_OPENED) from None
    except exceptions.DecryptionError as error:
        raise Unreadable(f"encrypted with an unsupported method ({error})") from None
    opened = out.getvalue()
    if not opened.startswith((b"PK", b"\xd0\xcf\x11\xe0")):  # the older kinds keep nothing to check a password by
        raise Unreadable(NOT_OPENED)
    return opened
