"""What a file is: by its name, and by the bytes that it begins with, which are believed more."""

from __future__ import annotations

import re

__all__ = ["CODE", "KINDS", "ROWS", "kind_of", "seen"]

CODE = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "tsx", ".java": "java", ".kt": "kotlin", ".kts": "kotlin",
    ".scala": "scala", ".go": "go", ".rs": "rust", ".c": "c", ".h": "c", ".cc": "cpp", ".cpp": "cpp", ".cxx": "cpp",
    ".hpp": "cpp", ".hh": "cpp", ".cu": "cpp", ".cs": "csharp", ".rb": "ruby", ".php": "php", ".swift": "swift",
    ".m": "objc", ".sh": "bash", ".bash": "bash", ".zsh": "bash", ".ps1": "powershell", ".sql": "sql", ".r": "r",
    ".jl": "julia", ".lua": "lua", ".pl": "perl", ".pm": "perl", ".ex": "elixir", ".exs": "elixir", ".erl": "erlang",
    ".hs": "haskell", ".ml": "ocaml", ".clj": "clojure", ".dart": "dart", ".zig": "zig", ".css": "css", ".scss": "scss",
    ".vue": "vue", ".svelte": "svelte", ".tf": "hcl", ".proto": "proto", ".graphql": "graphql", ".yaml": "yaml",
    ".yml": "yaml", ".toml": "toml", ".cmake": "cmake", ".mk": "make", ".f90": "fortran", ".vb": "vb",
    ".groovy": "groovy", ".gradle": "groovy",
}  # fmt: skip
"""The language of source code, by the end of its name, as tree-sitter calls it."""

KINDS = {
    ".md": "markdown", ".markdown": "markdown", ".mdx": "markdown", ".html": "html", ".htm": "html", ".xhtml": "html",
    ".txt": "text", ".text": "text", ".log": "text", ".rst": "text", ".org": "text", ".adoc": "text", ".tex": "text",
    ".srt": "text", ".vtt": "text", ".ini": "text", ".cfg": "text", ".conf": "text", ".pdf": "pdf", ".docx": "docx",
    ".docm": "docx", ".dotx": "docx", ".pptx": "pptx", ".pptm": "pptx", ".ppsx": "pptx", ".xlsx": "xlsx",
    ".xlsm": "xlsx", ".xlsb": "xlsx", ".xls": "xlsx", ".ods": "xlsx", ".odt": "odt", ".odp": "odp", ".csv": "csv",
    ".tsv": "csv", ".epub": "epub", ".rtf": "rtf", ".eml": "email", ".msg": "msg", ".doc": "doc", ".ppt": "ppt",
    ".json": "json", ".jsonl": "json", ".ndjson": "json", ".ipynb": "notebook", ".xml": "xml", ".rss": "xml",
    ".atom": "xml", **dict.fromkeys(CODE, "code"),
}  # fmt: skip
"""How a file is read, by the end of its name."""

ROWS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
"""The files whose rows are documents where the pipeline names columns."""

_PLAIN_NAMES = {
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "changelog",
    "changes",
    "contributing",
    "news",
    "todo",
}
_CODE_NAMES = {"makefile": "make", "dockerfile": "dockerfile", "cmakelists.txt": "cmake", "rakefile": "ruby", "gemfile": "ruby"}


def kind_of(name: str) -> tuple[str, str]:
    """The kind and the language of a file by its name; an empty kind is one that is not read."""
    name = name.lower()
    if name in _CODE_NAMES:
        return "code", _CODE_NAMES[name]
    suffix = name[name.rfind(".") :] if "." in name else ""
    if not suffix and name in _PLAIN_NAMES:
        return "text", ""
    return KINDS.get(suffix, ""), CODE.get(suffix, "")


def seen(head: bytes) -> str:
    """What the first KiB say it is: `pdf`, `rtf`, `zip`, `ole`, `html`, `image`, `program` or nothing."""
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    match head[:4]:
        case b"PK\x03\x04" | b"PK\x05\x06":
            return "zip"
        case b"\xd0\xcf\x11\xe0":
            return "ole"
        case b"\x89PNG" | b"\xff\xd8\xff\xe0" | b"\xff\xd8\xff\xe1" | b"GIF8":
            return "a picture"
        case b"\x7fELF":
            return "a program"
    if head[:2] == b"\x1f\x8b" or head[:6] in (b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07"):
        return "an archive"
    if head[:5] == b"SQLit":
        return "a database"
    if re.search(rb"%PDF-\d", head[:1024]) and not re.match(rb"[\s\w]{200}", head):
        return "pdf"
    if start.startswith(b"{\\rtf"):
        return "rtf"
    return "html" if start.startswith((b"<!doctype html", b"<html")) else ""
