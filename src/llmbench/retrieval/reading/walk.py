"""Which files a pipeline names: folders walked, patterns applied, links kept inside, what cannot be read reported."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from llmbench.errors import DataError
from llmbench.recipe import STDIN, SourceSpec
from llmbench.retrieval.documents import Momentary, Skipped, Unreadable, not_read
from llmbench.retrieval.reading.kinds import ROWS, kind_of, kind_of_bytes
from llmbench.shown import counted

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

__all__ = ["File", "Walk", "located", "walk"]


@dataclass(frozen=True)
class File:
    """A file to index: where it lies, how it is called in the index, and what the pipeline says of its place.

    `data` is its contents where they came from elsewhere, such as standard input.
    """

    path: Path
    source: str
    place: SourceSpec
    data: bytes | None = None

    @property
    def suffix(self) -> str:
        """The end of its name that says how it is read, with the dot, in lower case: the pipeline's word, else its own."""
        own = self.path.suffix.lower()
        given = self.place.formats.get(own) or self.place.format
        return f".{given}" if given else own

    @property
    def kind(self) -> tuple[str, str]:
        """Its kind and language by the pipeline's word, else by its name; an empty kind is told by its bytes."""
        given = self.suffix != self.path.suffix.lower()
        return kind_of(f"x{self.suffix}" if given else self.path.name)


@dataclass
class Walk:
    """What the places hold: files, sorted by source, and what was left out with the reason.

    `unread` is what is there and could not be looked at now: files, and folders, whose names end in `/`.
    """

    files: list[File]
    skipped: list[Skipped]
    unread: list[Skipped]


def walk(places: Sequence[SourceSpec], given: File | None = None, held: Collection[str] = ()) -> Walk:
    """Every readable file under the roots.

    One folder's sources are relative to it; those of several roots to the folder that holds them all. Hidden files and what
    the pipeline's patterns leave out are passed over in silence; a link that leads out of its root, a file of a kind that is
    not read, a pipe and a device are reported. A file whose name says nothing is taken where its first bytes are text. One in
    several places belongs to the last of them.

    Args:
        places: the pipeline's.
        given: what standard input held, where it is one of them.
        held: the sources of the files that the index holds documents of.

    Raises:
        ValueError: a pattern is none.
        DataError: a root is gone, cannot be read, or is empty although files of it are held; a file bears the name of standard
            input.
    """
    places = [place for place in places if place.path != STDIN]
    extra = [given] if given is not None else []
    roots = [place.path.resolve() for place in places]
    folders = [_is_folder(root) for root in roots]
    base = _base(roots)
    others = {file.source for file in extra}
    files: dict[Path, File] = {}
    skipped: list[Skipped] = []
    unread: list[Skipped] = []
    for root, place, is_folder in zip(roots, places, folders, strict=True):
        if is_folder:
            _refuse_empty(root, base, held)
        folder = _Folder(root, place)
        for path in folder.files() if is_folder else [root]:
            source = _name(path, base)
            try:
                target = _readable(path, root, place, named=not is_folder)
            except Unreadable as error:
                (unread if isinstance(error, Momentary) else skipped).append((source, str(error)))
                continue
            if target not in files or files[target].source == source:
                files[target] = File(path, source, place)
        unread += [(f"{_name(path, base)}/", str(reason)) for path, reason in folder.unread]
    if others & {file.source for file in files.values()}:
        raise DataError(f"a file is named {extra[0].source}, like standard input. Exclude or rename it.")
    found: dict[str, File] = {}
    for file in sorted([*files.values(), *extra], key=lambda file: (file.source, os.fsencode(file.path))):
        if file.source in found:
            skipped.append((file.source, "another file has the same name; rename one of them"))
        else:
            found[file.source] = file
    return Walk(list(found.values()), sorted(set(skipped)), sorted(set(unread)))


def _is_folder(root: Path) -> bool:
    """Whether a root is a folder or a file.

    Raises:
        DataError: it is not there, or cannot be looked at: not a reason to forget what was in it.
    """
    try:
        if root.is_dir():
            with os.scandir(root):
                return True
        root.stat()
    except OSError as error:
        raise DataError(
            f"{root} cannot be read ({error.strerror}). Mount it or fix its permissions; the index is unchanged."
        ) from error
    return False


def _refuse_empty(root: Path, base: Path, held: Iterable[str]) -> None:
    """A folder with nothing in it, of which files are held, is likelier a disk that is not mounted than a wish.

    Raises:
        DataError: it is so.
    """
    start = "" if root == base else f"{_name(root, base)}/"
    count = sum(source.startswith(start) for source in held)
    with os.scandir(root) as entries:
        if not count or any(not entry.name.startswith(".") for entry in entries):
            return
    files = counted(count, "file")
    raise DataError(
        f"{root} is empty, but the index has {files} from it. If it is a disk, mount it; to drop deleted files from the "
        f"index, use `llmbench index delete`. The index is unchanged."
    )


def located(places: Sequence[SourceSpec], source: str) -> Path | None:
    """Where the file of a source lies now; None where the pipeline's places hold no such file."""
    roots = [place.path.resolve() for place in places if place.path != STDIN]
    if not roots or "\0" in source:
        return None
    try:
        path = (_base(roots) / source).resolve(strict=True)
        inside = any(path == root or path.is_relative_to(root) for root in roots)
        return path if inside and path.is_file() else None
    except (OSError, RuntimeError, ValueError):  # gone, a link in a circle, a path that is none
        return None


def _base(roots: Sequence[Path]) -> Path:
    """What sources are relative to."""
    if len(roots) == 1 and roots[0].is_dir():
        return roots[0]
    return Path(os.path.commonpath([root.parent for root in roots])) if roots else Path()


def _readable(path: Path, root: Path, place: SourceSpec, *, named: bool) -> Path:
    """Where the file lies in truth.

    Raises:
        Unreadable: it is no file to be read, and why; Momentary where it is there and cannot be looked at.
    """
    try:
        target = path.resolve(strict=True) if path.is_symlink() else path
        mode = target.stat().st_mode
    except (OSError, RuntimeError) as error:
        found = not_read(error) if isinstance(error, OSError) else Unreadable("")
        if isinstance(found, Momentary):
            raise found from None
        raise Unreadable("a broken or circular link" if path.is_symlink() else "cannot be read") from None
    if path.is_symlink() and not target.is_relative_to(root):
        raise Unreadable("a link to outside the folder")
    if stat.S_ISDIR(mode):
        raise Unreadable("a link to a folder, which is not followed")
    if not stat.S_ISREG(mode):
        raise Unreadable("not a plain file")
    file = File(target, path.name, place)
    suffix = path.suffix.lower()
    if file.suffix in ROWS and place.columns is not None:
        return target
    kind = file.kind[0]
    if file.suffix in ROWS and not kind:
        raise Unreadable(f"{file.suffix} files are read as rows: give their place `columns`, such as columns: {{}}")
    if kind or named or _is_named(path.name, place.include):
        return target
    try:
        with target.open("rb") as stream:
            head = stream.read(1024)
    except OSError as error:
        raise not_read(error) from None
    if not kind_of_bytes(path.name, head):
        ending = suffix[:20].encode("utf-8", "replace").decode()
        raise Unreadable(f"{ending} files are not read" if ending else "a binary file without an ending")
    return target


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    """Whether a pattern of `include` names a file by its ending (`*.typ`), or whole, and so asks for it to be read."""
    suffix = PurePath(name).suffix
    ends = [pattern.rpartition("/")[2] for pattern in patterns if not pattern.startswith("!")]
    return name in ends or (bool(suffix) and any(end.lower().endswith(suffix.lower()) for end in ends))


class _Folder:
    """One folder as a place of documents, with the patterns that hold in it."""

    def __init__(self, root: Path, place: SourceSpec) -> None:
        self.root, self.place = root, place
        self.ignores: dict[str, GitIgnoreSpec] = {}
        self.unread: list[tuple[Path, Unreadable]] = []
        """Folders that could not be listed, after `files`."""

    @cached_property
    def include(self) -> GitIgnoreSpec | None:
        """What is taken; None is all."""
        return _spec(self.place.include) if self.place.include else None

    @cached_property
    def exclude(self) -> GitIgnoreSpec:
        """What is left out."""
        return _spec(self.place.exclude)

    def files(self) -> Iterator[Path]:
        """What is taken, hidden files left out; links to folders are listed, not followed."""
        for folder, folders, names in os.walk(self.root, onerror=self.cannot):
            here = os.path.relpath(folder, self.root).replace(os.sep, "/")
            start = "" if here == "." else f"{here}/"
            if self.place.gitignore and ".gitignore" in names:
                try:
                    self.ignores[start] = _spec(Path(folder, ".gitignore").read_text("utf-8", "replace").splitlines())
                except OSError as error:  # what it leaves out is not known, and so nothing is taken
                    self.unread.append((Path(folder), not_read(error)))
                    folders.clear()
                    continue
            kept: list[str] = []
            links: list[str] = []
            for name in sorted(folders):
                if name.startswith(".") or self.left_out(f"{start}{name}/"):
                    continue
                (links if Path(folder, name).is_symlink() else kept).append(name)
            folders[:] = kept
            for name in [*sorted(names), *links]:
                if not name.startswith(".") and self.taken(f"{start}{name}"):
                    yield Path(folder, name)

    def cannot(self, error: OSError) -> None:
        """Notes a folder that is there and cannot be listed."""
        found = not_read(error)
        if isinstance(found, Momentary):
            self.unread.append((Path(error.filename), found))

    def taken(self, name: str) -> bool:
        """Whether a file is one to take."""
        return not self.left_out(name) and (self.include is None or bool(self.include.match_file(name)))

    def left_out(self, name: str) -> bool:
        """Whether `exclude` or a .gitignore names a file, or a folder (with `/` behind it); the deepest of these decides."""
        if self.exclude.match_file(name):
            return True
        for start in sorted(self.ignores, key=len, reverse=True):
            if name.startswith(start):
                found = self.ignores[start].check_file(name[len(start) :]).include
                if found is not None:
                    return found
        return False


def _spec(patterns: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)


def _name(path: Path, base: Path) -> str:
    """The path from the base, with `/`; bytes that are not UTF-8 as `\\xff`."""
    return os.fsencode(path.relative_to(base).as_posix()).decode("utf-8", "backslashreplace")
