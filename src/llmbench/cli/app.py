"""`llmbench app`: the Gradio program of app/, on this machine."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench import assets
from llmbench.cli.arguments import Overrides
from llmbench.errors import LlmbenchError, MissingPackage, RecipeError

if TYPE_CHECKING:
    from llmbench.gateway.background import Background

__all__ = ["program", "register"]

_PACKAGE = "llmbench_app"
_URL = "http://127.0.0.1:8000/v1"


def register(cli: typer.Typer) -> None:
    """Adds the verb `app`."""

    @cli.command(epilog="Example: `llmbench app --serve recipes/serve.yaml gateway.port=8001`")
    def app(
        overrides: Overrides = None,
        *,
        url: Annotated[str | None, typer.Option(help=f"An OpenAI-compatible endpoint; {_URL} by default.")] = None,
        serve: Annotated[
            Path | None,
            typer.Option(
                metavar="RECIPE", help="Start this serving recipe and connect the app to it; KEY=VALUE overrides its fields."
            ),
        ] = None,
        port: Annotated[int, typer.Option(min=0, max=65535, help="The app's port; 0 picks a free one.")] = 7860,
        pipeline: Annotated[
            Path | None, typer.Option(metavar="PIPELINE", help="The RAG pipeline to open in Documents.")
        ] = None,
    ) -> None:
        """Open the workbench in a browser: compare variants, search documents, see runs and reports.

        The page opens at once, with or without an endpoint; with --serve, Compare shows vLLM's progress.
        """
        if url and serve:
            raise LlmbenchError("Give either --url (a running endpoint) or --serve (a recipe to start), not both.")
        if overrides and not serve:
            raise LlmbenchError(f"{overrides[0]} sets a field of a serving recipe. Name the recipe: --serve recipes/serve.yaml")
        if url and not url.startswith(("http://", "https://")):
            raise LlmbenchError(f"--url {url} is not a URL. Give one such as {_URL}")
        found = pipeline and (assets.named(str(pipeline), Path.cwd()) or pipeline)
        if found and not found.is_file():
            raise RecipeError(f"--pipeline {pipeline}: no such file. List the bundled pipelines: llmbench new")
        _check_port(port)
        main = program()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        key = os.environ.get("OPENAI_API_KEY")
        if serve is None:
            main.launch(main.Settings(url=url or _URL, api_key=key, pipeline=found), port=port, ready=_say)
            return
        with _served(serve, overrides or ()) as engine:
            settings = main.Settings(url=engine.base_url, api_key=engine.api_key, pipeline=found, engine=engine)
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
            raise LlmbenchError(f"The app is missing from {folder}. Reinstall llmbench.")
        package = importlib.util.module_from_spec(spec)
        sys.modules[_PACKAGE] = package
        spec.loader.exec_module(package)
    return importlib.import_module(f"{_PACKAGE}.main")


@contextmanager
def _served(path: Path, overrides: Sequence[str]) -> Iterator[Background]:
    """vLLM and the endpoint of a serving recipe, loading while the app is opened, and ended with it."""
    from llmbench import recipe
    from llmbench.gateway.background import Background

    engine = Background(recipe.load(path, recipe.ServeRecipe, overrides), say=_tell)
    try:
        engine.start()
        yield engine
    finally:
        engine.stop()


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
                f"Port {port} cannot be used ({error.strerror}). Is the app already open? If not: llmbench app --port 0"
            ) from error


def _say(address: str) -> None:
    print(f"The app is open at {address}  (Ctrl-C stops it)", flush=True)
