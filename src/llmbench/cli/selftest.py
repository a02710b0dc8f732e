"""`llmbench selftest`."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli.arguments import Json
from llmbench.cli.terminal import print_json
from llmbench.errors import MissingPackage

if TYPE_CHECKING:
    from llmbench.borrowed import Found
    from llmbench.training.selftest import Result


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command("selftest", epilog="Example: `pip install -U trl && llmbench selftest`")(selftest)


def selftest(
    device: Annotated[str, typer.Option(help="auto (the GPU if there is one), cpu or cuda.")] = "auto",
    as_json: Json = False,
) -> None:
    """Verify on the bundled model that training computes correctly with the installed versions (under 90 s on a CPU).

    Packed rows must train like unpacked ones, accumulated batches like one large batch, a resumed run like an uninterrupted
    one, and a merged model must answer like its adapter. First it verifies that the private functions of other packages
    that llmbench uses still have the recorded signatures.

    Exit code 0: every test passed; 1: one failed.
    """
    for package in ("torch", "transformers", "datasets", "trl", "peft"):
        if find_spec(package) is None:
            raise MissingPackage("selftest", package, "train")
    from rich.console import Console

    from llmbench import provenance

    results: list[Result] = []
    with Console(stderr=True).status("Loading the libraries") as status:
        from llmbench.borrowed import look
        from llmbench.engine import patches as engine
        from llmbench.retrieval.embedding.light import patches as light
        from llmbench.training.selftest import TRIALS, borrowed_names
        from llmbench.training.selftest import selftest as trials

        borrowed = [*borrowed_names(), *map(look, light.ROWS), *engine.look()]
        if not as_json:
            for found in borrowed:
                print(_borrowed(found), flush=True)
        names = [*TRIALS, ""]
        status.update(f"Testing {names[0]}")
        for result in trials(device):
            results.append(result)
            if not as_json:
                print(_line(result), flush=True)
            status.update(f"Testing {names[len(results)]}")
    good = all(result.passed or result.skipped for result in results)
    if as_json:
        rows = [asdict(result) | {"passed": result.passed} for result in results]
        names_found = [found.as_json() for found in borrowed]
        print_json({"passed": good, "versions": provenance.versions(), "borrowed": names_found, "trials": rows})
    else:
        tried, seconds = [result for result in results if not result.skipped], sum(result.seconds for result in results)
        verdict = f"All {len(tried)} tests passed" if good else "FAILED: training with these versions gives wrong results"
        print(f"{verdict} ({seconds:.0f} s; {_versions(provenance.versions())}).")
    if not good:
        raise typer.Exit(1)


def _borrowed(found: Found) -> str:
    patch = found.patch
    package = f"{patch.package} {found.version}" if found.version else patch.package
    line = f"  {found.state:<7}  {package}: {patch}"
    return line if found.state != "differs" else f"{line}\n           {found.line()}"


def _line(result: Result) -> str:
    if result.skipped:
        return f"  -     {result.name}: skipped: {result.skipped}"
    mark = "ok  " if result.passed else "FAIL"
    return (
        f"  {mark}  {result.name}: {result.compares}\n"
        f"        relative difference {result.difference:.1e}, at most {result.tolerance:.0e} allowed; {result.seconds:.1f} s"
    )


def _versions(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "trl", "peft") if name in found)
