"""`llmbench app`: the Gradio program of app/, on this machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench import assets
from llmbench.errors import LlmbenchError, MissingPackage, RecipeError

if TYPE_CHECKING:
    from llmbench.engine import Progress

__all__ = ["program", "register"]

_PACKAGE = "llmbench_app"
_URL = "http://127.0.0.1:8000/v1"


def register(cli: typer.Typer) -> None:
    """Adds the verb `app`."""

    @cli.command()
    def app(
        url: Annotated[str | None, typer.Option(help=f"An OpenAI-compatible endpoint; {_URL} without this.")] = None,
        serve: Annotated[Path | None, typer.Option(help="Start this serving recipe, and open the app on it.")] = None,
        port: Annotated[int, typer.Option(min=0, max=65535, help="The app's port; 0 takes a free one.")] = 7860,
        pipeline: Annotated[Path | None, typer.Option(help="The RAG pipeline that Documents shows first.")] = None,
    ) -> None:
        """Open the workbench in a browser: compare variants, search documents, see runs and reports.

        It opens without an endpoint too; Compare then says how to start one.

        Example: `llmbench app --serve recipes/serve.yaml`
        """
        if url and serve:
            raise LlmbenchError("--url and --serve exclude each other: give the endpoint that runs, or the recipe to start.")
        if url and not url.startswith(("http://", "https://")):
            raise LlmbenchError(f"--url {url} is not a URL. Give one such as {_URL}")
        found = pipeline and (assets.find(str(pipeline), Path.cwd()) or pipeline)
        if found and not found.is_file():
            raise RecipeError(f"--pipeline {pipeline}: no such file. The bundled ones are listed by: llmbench new")
        _check_port(port)
        main = program()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        key = os.environ.get("OPENAI_API_KEY")
        with _served(serve) if serve else nullcontext((url or _URL, key)) as (base_url, api_key):
            settings = main.Settings(url=base_url, api_key=api_key, pipeline=found)
            main.launch(settings, port=port, ready=_say)


def program() -> ModuleType:
    """The module `main` of app/, which is no part of the package and is found beside the recipes.

    Raises:
        MissingPackage: gradio is not installed.
    """
    if importlib.util.find_spec("gradio") is None:
        raise MissingPackage("app", "gradio", "app")
    if _PACKAGE not in sys.modules:
        folder = assets.bundle() / "app"
        spec = importlib.util.spec_from_file_location(
            _PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None:
            raise LlmbenchError(f"{folder} is not a program. Install llmbench again.")
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_PACKAGE}.main")


@contextmanager
def _served(path: Path) -> Iterator[tuple[str, str | None]]:
    """The endpoint of a serving recipe while the app is open, and its key."""
    from llmbench import recipe
    from llmbench.gateway import server

    document = recipe.load(path, recipe.ServeRecipe)
    phase = ""

    def show(state: Progress) -> None:
        nonlocal phase
        if state.phase != phase:
            phase = state.phase
            _tell(f"{state.seconds:5.1f} s  {phase}")

    with server.running(document, progress=show, log=_tell) as base_url:
        yield base_url, document.gateway.api_key


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _check_port(port: int) -> None:
    """Finds a taken port before anything is started.

    Raises:
        LlmbenchError: another program listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise LlmbenchError(
                f"Port {port} cannot be used ({error.strerror}). Is the app open already? Else: llmbench app --port 0"
            ) from error


def _say(address: str) -> None:
    print(f"The app is open at {address}  (Ctrl-C ends it)", flush=True)
