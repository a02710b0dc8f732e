"""`llmbench certify`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError, MissingPackage

if TYPE_CHECKING:
    from pathlib import Path

    from llmbench.parity import Certificate, Parity

_HELP = """Write an adapter's certificate, or compare a server with it.

The certificate holds what the trained model answers to 24 fixed chats: the prompts' token ids, the log-probability of each
token with the adapter and without, and greedy continuations. Training writes it into the folder of each LoRA adapter;
`llmbench serve` sends the same chats to vLLM before it accepts requests.

With --url, compare a running vLLM; exit code 1 if it answers differently from the trained model. Name vLLM itself:
llmbench's own gateway passes no prompt log-probabilities on, and has compared its engine when it started.
"""


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command(
        "certify",
        help=_HELP,
        epilog="Example: `llmbench certify sft-lora --url http://127.0.0.1:8001/v1 --model sft-lora --base-model base`",
    )(certify)


def certify(
    adapter: Annotated[
        str, typer.Argument(metavar="ADAPTER", help="A run, or an adapter's folder.", autocompletion=completion.runs)
    ],
    base: Annotated[
        str | None,
        typer.Option("--base", metavar="MODEL", help="The base model, if the adapter's configuration names another."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace a certificate that is there.")] = False,
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="A vLLM server to compare, such as http://127.0.0.1:8001/v1.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME", help="What the server calls the adapter; with --url.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option("--base-model", metavar="NAME", help="What it calls the base; its answers set the tolerance."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Writes what is missing, then compares where a server is named."""
    from llmbench import parity

    if (url is None) != (model is None):
        raise LlmbenchError("--url and --model belong together: which server, and what it calls the adapter")
    folder, certificate, new = _certificate(adapter, base, again)
    changed = certificate.changed(folder)
    if changed:
        raise LlmbenchError(
            f"{folder}: {' and '.join(changed)} changed since the certificate was written. "
            f"Write it again: llmbench certify {adapter} --again"
        )
    verdict = _compared(certificate, url, model, base_model) if url is not None and model is not None else None
    if as_json:
        print_json(
            {"certificate": str(folder / parity.FILE), "written": new, "probes": len(certificate.probes)}
            | {"tokens": certificate.tokens, "dtype": certificate.dtype}
            | {"parity": verdict.as_json() if verdict is not None else None}
        )
    else:
        print("\n".join(_lines(folder, certificate, verdict, new=new)))
    if verdict is not None and not verdict.holds:
        raise typer.Exit(1)


def _certificate(adapter: str, base: str | None, again: bool) -> tuple[Path, Certificate, bool]:
    """The adapter's folder, its certificate, and whether it was written just now."""
    from rich.console import Console

    from llmbench import parity

    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingPackage("certify", package, "train")
    from llmbench.training.merging import certifying

    folder = certifying.folder_of(adapter)
    found = None if again else parity.read(folder)
    if found is not None:
        return folder, found, False
    with Console(stderr=True).status("Loading the base and the adapter, and asking them"):
        return folder, certifying.certify(folder, base=base), True


def _compared(certificate: Certificate, url: str, model: str, base_model: str | None) -> Parity:
    import os

    import httpx
    from rich.console import Console

    from llmbench import parity

    key = os.environ.get("OPENAI_API_KEY", "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    with Console(stderr=True).status(f"Asking {url}"), httpx.Client(timeout=600, headers=headers, trust_env=False) as client:
        served = parity.ask(client, model, certificate, base_url=url)
        base = parity.ask(client, base_model, certificate, base_url=url) if base_model is not None else None
    return parity.judge(certificate, served, base)


def _lines(folder: Path, certificate: Certificate, verdict: Parity | None, *, new: bool) -> list[str]:
    from llmbench import parity

    effect = parity.effect(certificate)
    changes = f"; the adapter changes {effect:.2g} nats a token" if effect is not None else ""
    lines = [
        f"{'Certificate written' if new else 'Certificate'}: {folder / parity.FILE}",
        f"  {len(certificate.probes)} chats, {certificate.tokens:,} tokens, computed in {certificate.dtype}{changes}",
    ]
    if verdict is not None:
        lines.append(f"{verdict.title}: {verdict.reason}")
        lines += [f"  Next: {verdict.remedy}"] if verdict.remedy else []
    return lines
