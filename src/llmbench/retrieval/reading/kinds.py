"""What a file is: by its name, and by the bytes that it begins with, which are believed more."""

from __future__ import annotations

import re

__all__ = ["CODE", "KINDS", "ROWS", "kind_of", "kind_of_bytes", "seen"]

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
    ".groovy": "groovy", ".gradle": "groovy", ".bat": "batch", ".cmd": "batch", ".asm": "asm", ".s": "asm",
    ".v": "verilog", ".sv": "verilog", ".vhd": "vhdl", ".vhdl": "vhdl", ".less": "less", ".sass": "sass", ".f": "fortran",
    ".f95": "fortran", ".pas": "pascal", ".lisp": "lisp", ".scm": "scheme", ".nix": "nix", ".fs": "fsharp", ".mm": "objc",
    ".awk": "awk", ".fish": "bash", ".tcl": "tcl", ".nim": "nim", ".sol": "solidity", ".psm1": "powershell",
}  # fmt: skip
"""The language of source code, by the end of its name, as tree-sitter calls it."""

_TEXTS = (
    "txt text log rst rest org adoc asciidoc asc tex ltx latex typ mediawiki wiki textile srt vtt sbv ini cfg conf properties "
    "po pot diff patch bib"
)
_NAMED = {
    "markdown": "md markdown mdx mkd qmd rmd",
    "html": "html htm xhtml xht shtml",
    "pdf": "pdf",
    "docx": "docx docm dotx dotm",
    "pptx": "pptx pptm ppsx ppsm potx potm",
    "xlsx": "xlsx xlsm xlsb xls xltx xltm xlt ods ots",
    "odt": "odt ott",
    "odp": "odp otp",
    "csv": "csv tsv tab",
    "epub": "epub",
    "rtf": "rtf",
    "email": "eml mht mhtml",
    "mbox": "mbox mbx",
    "calendar": "ics ifb vcs vcf vcard",
    "msg": "msg",
    "doc": "doc",
    "ppt": "ppt pps",
    "zip": "zip",
    "json": "json jsonl ndjson jsonc json5 geojson webmanifest",
    "notebook": "ipynb",
    "xml": "xml rss atom nxml jats opml xsd xsl xslt wsdl dita ditamap dbk fb2 tei kml gpx resx xlf xliff tmx plist "
    "fodt fodp fods csproj vbproj vcxproj fsproj props targets nuspec xaml",
    "text": _TEXTS,
}
KINDS = {f".{ending}": kind for kind, endings in _NAMED.items() for ending in endings.split()} | dict.fromkeys(CODE, "code")
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


_AGAIN = re.compile(r"(?<=.)(?:\.\d{1,4}|[.-]\d{4}-?\d\d-?\d\d|\.(?:bak|old|orig|sample|example|tmpl|template|in)|~)$")
"""What is put behind a name when a log is rotated or a file is copied: server.log.1, settings.ini.bak."""
_LEFT_OUT = {
    *(".svg", ".map", ".lock", ".sum", ".pem", ".key", ".crt", ".cer", ".csr", ".ppk", ".gpg", ".ps", ".eps", ".obj", ".stl"),
    *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".ico", ".heic", ".mp3", ".mp4", ".wav", ".avi"),
    *(".mov", ".mkv", ".flac", ".ogg", ".webm", ".exe", ".dll", ".so", ".o", ".a", ".bin", ".pyc", ".class", ".jar", ".gz"),
    *(".bz2", ".xz", ".zst", ".7z", ".rar", ".tar", ".tgz", ".whl", ".iso", ".db", ".sqlite", ".ttf", ".otf", ".woff"),
    *(".svgz", ".ppm", ".dxf", ".step", ".sig", ".sha256", ".md5", ".parquet", ".part"),
}
"""Endings of files that are not read whatever their bytes are: pictures, sounds, programs; and drawings, keys and sums, which
are text and no prose."""
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")


def kind_of(name: str) -> tuple[str, str]:
    """The kind and the language of a file by its name; an empty kind is one that its name does not tell."""
    name = name.lower().rpartition("/")[2]
    if name in _CODE_NAMES:
        return "code", _CODE_NAMES[name]
    suffix = name[name.rfind(".") :] if "." in name else ""
    if not suffix and name in _PLAIN_NAMES:
        return "text", ""
    if suffix not in KINDS and (shorter := _AGAIN.sub("", name)) != name:
        return kind_of(shorter)
    return KINDS.get(suffix, ""), CODE.get(suffix, "")


def kind_of_bytes(name: str, head: bytes) -> str:
    """What a file is whose name does not tell it, by its first KiB: `text` where these are text; empty where it is not read."""
    suffix = name[name.rfind(".") :].lower() if "." in name.rpartition("/")[2] else ""
    if suffix in _LEFT_OUT or head.startswith(b"-----BEGIN "):
        return ""
    if what := seen(head):
        return what if what in ("pdf", "rtf", "html") else ""
    if re.match(rb"From \S[^\n]*\d\r?\n(?:[!-9;-~]+:|>?From )", head):
        return "mbox"
    return "text" if _is_text(head) else ""


def _is_text(head: bytes) -> bool:
    """Whether bytes are text without control characters: Unicode by its mark, UTF-8, or mostly ASCII."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if not head.strip() or _CONTROLS.search(head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = len(head) >= 1000 and error.start >= len(head) - 4
        return cut or sum(byte > 0x7F for byte in head) < 0.3 * len(head)
    return True


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
