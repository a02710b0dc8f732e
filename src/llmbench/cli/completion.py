"""`llmbench completion`, and what the shell offers for a document: bundled names, and YAML files of the working folder."""

from __future__ import annotations

import glob
from pathlib import Path

import typer

from llmbench import assets

__all__ = [
    "comparisons", "documents", "exports", "formats", "pipelines", "precisions", "recipes", "register", "routes", "runs",
    "sweeps", "variants", "votes",
]  # fmt: skip


def register(cli: typer.Typer) -> None:
    """Adds `completion`."""
    cli.command(epilog="Example: `llmbench completion`")(completion)


def completion() -> None:
    """Show how to install shell completion for verbs, options and bundled names."""
    print(
        "Install completion for this shell:  llmbench --install-completion\n"
        "Install it for another one:         llmbench --install-completion zsh  (bash, zsh, fish, powershell or pwsh)\n"
        "Print the script instead:           llmbench --show-completion\n"
        "Then open a new terminal."
    )


def recipes(incomplete: str) -> list[str]:
    """Documents for train, serve, compare and sweep."""
    return _offer("recipes/", incomplete)


def documents(incomplete: str) -> list[str]:
    """Documents of every kind."""
    return sorted({*_offer("recipes/", incomplete), *_offer("rag/", incomplete)})


def pipelines(incomplete: str) -> list[str]:
    """Documents for index, search and ask."""
    return _offer("rag/", incomplete)


def runs(incomplete: str) -> list[str]:
    """The runs of this workspace."""
    from llmbench import workspace

    return sorted(path.parent.name for path in workspace.runs().glob(f"{glob.escape(incomplete)}*/state.json"))


def comparisons(incomplete: str) -> list[str]:
    """The comparisons of this workspace."""
    from llmbench import workspace

    return sorted(path.parent.name for path in workspace.comparisons().glob(f"{glob.escape(incomplete)}*/summary.json"))


def sweeps(incomplete: str) -> list[str]:
    """The sweeps of this workspace."""
    from llmbench import workspace

    return sorted(path.parent.name for path in workspace.sweeps().glob(f"{glob.escape(incomplete)}*/plan.json"))


def votes(incomplete: str) -> list[str]:
    """What was voted on in this workspace."""
    from llmbench import workspace

    return sorted(path.parent.name for path in workspace.votes().glob(f"{glob.escape(incomplete)}*/votes.sqlite"))


def formats(incomplete: str) -> list[str]:
    """The formats that runs are exported in."""
    from llmbench.exporting.formats import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def exports(incomplete: str) -> list[str]:
    """The exports of this workspace."""
    from llmbench import workspace

    return sorted(path.parent.name for path in workspace.exports().glob(f"{glob.escape(incomplete)}*/proof.json"))


def precisions(ctx: typer.Context, incomplete: str) -> list[str]:
    """The precisions of the format that is asked for."""
    from llmbench.exporting.formats import FORMATS

    entry = FORMATS.get(str(ctx.params.get("format_")))
    return [name for name in (entry.precisions if entry else ()) if name.startswith(incomplete)]


def variants(incomplete: str) -> list[str]:
    """What the endpoint on this machine serves, if one answers at once."""
    return [card["id"] for card in _cards() if card["id"].startswith(incomplete)]


def routes(incomplete: str) -> list[str]:
    """The routes of the endpoint on this machine."""
    return [card["id"] for card in _cards() if "sticky" in card and card["id"].startswith(incomplete)]


def _cards() -> list[dict[str, str]]:
    import json
    import os
    from urllib.request import ProxyHandler, Request, build_opener

    request = Request("http://127.0.0.1:8000/v1/models")
    if key := os.environ.get("OPENAI_API_KEY"):
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=1.0) as response:
            return [entry | {"id": str(entry["id"])} for entry in json.load(response)["data"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _offer(folder: str, incomplete: str) -> list[str]:
    bundled = {name for name in assets.documents() if name.startswith(folder)}
    mine = {path.as_posix() for path in Path(incomplete).parent.glob("*.y*ml")}
    return sorted(name for name in bundled | mine if name.startswith(incomplete))
