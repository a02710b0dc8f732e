"""Everything that serving needs, started in the order that saves time and ended in any case."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmbench import assets
from llmbench.engine import BASE, Adapter, Engine, Progress, admit_all
from llmbench.errors import EngineError, MissingPackage, RecipeError
from llmbench.gateway.app import Served, build
from llmbench.gateway.grounding import Grounding, open_retriever
from llmbench.gateway.relay import Upstream
from llmbench.recipe import GatewaySpec, RagRecipe, ServeRecipe, Variant, load

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["Gateway", "running", "started"]

_LOCAL = frozenset({"127.0.0.1", "localhost", "::1"})
_SHUTDOWN = 2


@dataclass(frozen=True)
class Gateway:
    """A running endpoint. `base_url` ends in `/v1`."""

    base_url: str
    models: tuple[Served, ...]
    engine: Engine


@contextmanager
def running(
    recipe: ServeRecipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[str]:
    """Serves the variants inside the block, at the base URL that it gives.

    Args:
        recipe: the serving document.
        progress: called about five times a second while vLLM loads.
        log: called with a line for each thing worth knowing, such as where vLLM's log is.

    Raises:
        RecipeError: the port is in use.
        MissingPackage, EngineError, IndexError_: vLLM, an adapter or an index is not fit.
    """
    with started(recipe, progress=progress, log=log) as gateway:
        yield gateway.base_url


@contextmanager
def started(
    recipe: ServeRecipe,
    *,
    progress: Callable[[Progress], None] | None = None,
    log: Callable[[str], None] | None = None,
) -> Iterator[Gateway]:
    """As `running`, but gives the gateway with its engine."""
    _need_packages()
    with ExitStack() as stack:
        listener = stack.enter_context(_listener(recipe))
        adapters = admit_all(recipe)
        engine = Engine(recipe, adapters)
        stack.enter_context(engine)
        if log is not None:
            log(f"vLLM's log: {engine.log}")
        groundings = _open_groundings(recipe, stack)  # they load while vLLM does

        def tick(state: Progress) -> None:
            for grounding in groundings.values():
                if grounding.failed:
                    grounding.ready()
            if progress is not None:
                progress(state)

        engine.wait(tick)
        for grounding in groundings.values():
            grounding.ready()
        models = tuple(_served(recipe, adapters, groundings))
        upstream = Upstream.at(engine.socket, lambda: engine.problem)
        spec = recipe.gateway
        hosts = _LOCAL if spec.host in _LOCAL else None
        app = build(models, upstream, context=engine.context, api_key=spec.api_key, hosts=hosts)
        stack.enter_context(_answering(app, listener))
        yield Gateway(_url(spec.host, listener.getsockname()[1]), models, engine)


def _need_packages() -> None:
    from importlib.util import find_spec

    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise MissingPackage("serve", package, "serve")


@contextmanager
def _listener(recipe: ServeRecipe) -> Iterator[socket.socket]:
    """Takes the port before anything slow starts, and keeps it; it listens only once there is something to answer."""
    spec = recipe.gateway
    family = socket.AF_INET6 if ":" in spec.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        try:
            _bind(listener, spec.host, spec.port)
        except OSError as error:
            raise RecipeError(_no_port(recipe, spec, error)) from error
        yield listener


def _bind(listener: socket.socket, host: str, port: int) -> None:
    """Binds, also where only the last connections of an earlier server still linger.

    SO_REUSEADDR from the start would let two servers take one port as long as neither listens yet.
    """
    try:
        listener.bind((host, port))
    except OSError as error:
        if error.errno != errno.EADDRINUSE or _is_listening(host, port):
            raise
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))


def _is_listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _no_port(recipe: ServeRecipe, spec: GatewaySpec, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{recipe.source}: port {spec.port} is in use. Choose another: gateway.port={spec.port + 1} (0 takes a free one)"
    return (
        f"{recipe.source}: cannot listen on {spec.host} port {spec.port} ({error.strerror}). Set gateway.host or gateway.port"
    )


def _open_groundings(recipe: ServeRecipe, stack: ExitStack) -> dict[Path, Grounding]:
    """One for each pipeline, however many variants use it."""
    groundings: dict[Path, Grounding] = {}
    for variant in recipe.variants:
        if variant.rag is not None and variant.rag not in groundings:
            groundings[variant.rag] = open_retriever(variant.rag)
            stack.callback(groundings[variant.rag].close)
    return groundings


def _served(recipe: ServeRecipe, adapters: Mapping[str, Adapter], groundings: Mapping[Path, Grounding]) -> Iterator[Served]:
    base = _plain(recipe.model.model_name_or_path)
    for variant in recipe.variants:
        adapter = adapters[variant.adapter] if variant.adapter is not None else None
        grounding = groundings[variant.rag] if variant.rag is not None else None
        name = _plain(adapter.source) if adapter is not None else None
        parts = [base, f"with adapter {name}" if name else "", f"grounded in {grounding.name}" if grounding else ""]
        card = {
            "root": base,
            "parent": base if adapter is not None else None,
            "adapter": {"name": name, "id": adapter.id, "rank": adapter.rank} if adapter is not None else None,
            "rag": grounding.name if grounding is not None else None,
            "fingerprint": _fingerprint(recipe, variant, adapter),
            "description": variant.description or ", ".join(part for part in parts if part),
        }
        yield Served(variant, adapter.id if adapter is not None else BASE, card, grounding)


def _fingerprint(recipe: ServeRecipe, variant: Variant, adapter: Adapter | None) -> str:
    """Changes with whatever shapes a variant's answers, the pages of its index apart; clients may keep answers by it."""
    base = assets.model_folder(recipe.model.model_name_or_path)
    # Size and time of the weights, not their hash: hashing 100 GB would take longer than loading them.
    files = [(path.name, path.stat()) for path in sorted(Path(base).glob("*.safetensors"))]
    weights = [(name, about.st_size, about.st_mtime_ns) for name, about in files]
    pipeline = load(variant.rag, RagRecipe).model_dump(mode="json") if variant.rag is not None else None
    spoken = variant.model_dump(mode="json", include={"system", "sampling"})
    parts = [weights, base, recipe.engine.dtype, adapter.id if adapter else None, pipeline, spoken]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _plain(name: str) -> str:
    """A model's or adapter's name without the folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name


@contextmanager
def _answering(app: Starlette, listener: socket.socket) -> Iterator[None]:
    """Answers requests from a thread until the block ends."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        ws="none",
        proxy_headers=False,
        timeout_graceful_shutdown=_SHUTDOWN,
        timeout_keep_alive=75,  # seconds; longer than clients keep theirs (httpx: 5), so that none asks a closing connection
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway", daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise EngineError("The gateway did not start; the lines above say why.")
            time.sleep(0.01)
        yield
    finally:
        logger = logging.getLogger("uvicorn.error")
        logger.disabled = True  # answers that are cut off now are no errors to report
        server.should_exit = True
        thread.join(_SHUTDOWN + 5)
        logger.disabled = False


def _url(host: str, port: int) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)  # noqa: S104 - what to ask, not where to listen
    return f"http://{name}:{port}/v1"
