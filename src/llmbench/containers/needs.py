"""What a serving document needs in a container: its command, and the files that it reads and writes.

Every file keeps its path in the container, so that documents are taken as they stand and nothing in them is rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from llmbench import assets, recipe, workspace
from llmbench.containers.text import label
from llmbench.errors import RecipeError
from llmbench.recipe import RagRecipe, ServeRecipe

__all__ = ["ENGINE_PORT", "Device", "Needs", "needs"]

Device = Literal["cpu", "cuda"]
ENGINE_PORT = 8001
"""Of an engine in a container of its own."""
GRACE = 10
"""Seconds for a server to end after its answers have."""


@dataclass(frozen=True)
class Needs:
    """The container that serves a document, and those of its engines where they have some of their own.

    `reads` are files and folders outside the workspace; none of them lies in another, or in the workspace (`home`).
    """

    name: str
    """Of the service: lower case letters, digits and dashes."""
    document: str
    """As the command names it: an absolute path, or `bundled://NAME`."""
    overrides: tuple[str, ...]
    image: str
    device: Device
    gpus: int
    """On `cuda`: those of one engine."""
    engines: int
    """vLLMs in containers of their own. With 0 the gateway starts its own, or asks `urls`."""
    urls: tuple[str, ...]
    """The document's engines."""
    port: int
    host: str | None
    """A name that the gateway answers to; None: to every name."""
    home: Path
    reads: tuple[Path, ...]
    downloads: bool
    """Whether the base comes from a model hub."""
    start_seconds: int
    stop_seconds: int

    @property
    def computes(self) -> bool:
        """Whether vLLM runs in the gateway's container."""
        return not self.engines and not self.urls

    def command(self, engine_hosts: Sequence[str] = ()) -> list[str]:
        """What the gateway's container runs.

        Args:
            engine_hosts: those of the engines in containers of their own. A document that names just these is left to say
                so itself: a reload applies what it says later.
        """
        words = ["llmbench", "serve", self.document, *self.overrides, "gateway.host=0.0.0.0", f"gateway.port={self.port}"]
        urls = [f"http://{host}:{ENGINE_PORT}" for host in engine_hosts]
        return [*words, f"engine.urls=[{', '.join(urls)}]"] if urls and set(urls) != set(self.urls) else words

    def engine_command(self) -> list[str]:
        """What an engine's container runs."""
        listen = f"0.0.0.0:{ENGINE_PORT}"
        return ["llmbench", "serve", self.document, *self.overrides, "--engine-only", "--listen", listen]

    def probe(self) -> list[str]:
        """What tells whether the gateway lives: it ends with 0 then."""
        return _probe(self.port, self.host or "127.0.0.1")

    def engine_probe(self) -> list[str]:
        """What tells whether an engine does."""
        return _probe(ENGINE_PORT, "127.0.0.1")


def needs(document: ServeRecipe, overrides: Sequence[str], *, image: str | None, device: Device, engines: int = 0) -> Needs:
    """What it takes to serve a document in containers.

    Args:
        document: as it was loaded.
        overrides: what the command line changed in it, which the containers' commands repeat.
        image: the containers'; None is `llmbench:cpu` or `llmbench:cuda`.
        device: what vLLM computes on there.
        engines: vLLMs in containers of their own, which take the place of those that the document names.

    Raises:
        RecipeError: everybody who reaches a port could ask; a secret stands in the command line; the document is no file.
    """
    origin = document.origin
    if origin is None:
        raise RecipeError(f"{document.source}: only a document in a file can be served in a container. Save it first")
    _refuse(document, overrides, engines)
    spec, engine, base = document.gateway, document.engine, document.model.model_name_or_path
    return Needs(
        name=label(document.source.stem),
        document=origin,
        overrides=tuple(overrides),
        image=image or f"llmbench:{device}",
        device=device,
        gpus=engine.tensor_parallel_size * engine.pipeline_parallel_size * engine.data_parallel_size,
        engines=engines,
        urls=tuple(engine.urls),
        port=spec.port or 8000,
        host=spec.allowed_hosts[0] if spec.allowed_hosts else None,
        home=workspace.home(),
        reads=_outermost(_reads(document, origin)),
        downloads=base != assets.TINY and not Path(base).is_absolute(),
        start_seconds=int(engine.start_timeout) + 60,
        stop_seconds=int(spec.shutdown_timeout) + GRACE,
    )


def _refuse(document: ServeRecipe, overrides: Sequence[str], engines: int) -> None:
    """Raises RecipeError for what a container must not or cannot do."""
    spec, engine = document.gateway, document.engine
    if spec.api_key is None and spec.keys is False:
        raise RecipeError(
            f"{document.source}: a container's port is reachable from other machines: set gateway.keys=true and make a key "
            "with `llmbench keys new`, or set gateway.api_key in the document"
        )
    if engines and engine.api_key is None:
        raise RecipeError(
            f"{document.source}: other containers reach the engines of --engines: set engine.api_key in the document"
        )
    written = {
        "keys": spec.keys if isinstance(spec.keys, Path) else None,
        "access_log.path": spec.access_log.path if spec.access_log is not None else None,
        "capture.path": spec.capture.path if spec.capture is not None else None,
    }
    for field, path in written.items():
        if path is not None and not path.is_relative_to(workspace.home()):
            raise RecipeError(
                f"{document.source}: gateway.{field} is {path}, outside of the workspace {workspace.home()}. A container "
                f"writes nowhere else: leave the path out, or name one in the workspace"
            )
    for field in (one.partition("=")[0] for one in overrides):
        if field in ("engine", "engine.api_key", "gateway", "gateway.api_key", "gateway.limits_in"):
            raise RecipeError(f"{field} would stand in the container's command line. Write it into the document instead")
    if engine.backend != "vllm":
        raise RecipeError(f"{document.source}: engine.backend: the images have vLLM alone. Serve ONNX with llmbench serve")
    if engine.python is not None:
        raise RecipeError(f"{document.source}: engine.python is of this machine. Leave it out: the image has its own")


def _reads(document: ServeRecipe, origin: str) -> Iterator[Path]:
    """What the document and its pipelines read outside of the workspace and of what the image has."""
    found = set(_paths(document))
    named = [document.model.model_name_or_path, *(variant.adapter for variant in document.variants)]
    found |= {Path(one) for one in named if one is not None and one.startswith("/")}
    if not origin.startswith(assets.BUNDLED):
        found.add(Path(origin))
    for pipeline in {variant.rag for variant in document.variants if variant.rag is not None}:
        rag = recipe.load(pipeline, RagRecipe)
        models = [rag.embedder.model_name_or_path, *([rag.search.rerank.model_name_or_path] if rag.search.rerank else [])]
        found |= {*_paths(rag), *(Path(one) for one in models if one.startswith("/"))}
    inside = (workspace.home(), assets.bundle())
    yield from (path for path in found if not any(path.is_relative_to(folder) for folder in inside))


def _probe(port: int, host: str) -> list[str]:
    ask = f"Request('http://127.0.0.1:{port}/health', headers={{'Host': '{host}'}})"
    return ["python3", "-c", f"from urllib.request import Request, urlopen; urlopen({ask}, timeout=5)"]


def _paths(value: Any) -> Iterator[Path]:
    """Every absolute path in a document that leads to something."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name))
    elif isinstance(value, dict):
        yield from _paths(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _paths(one)
    elif isinstance(value, Path) and value.is_absolute() and value.exists():
        yield value


def _outermost(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Those that lie in none of the others, in order."""
    kept: list[Path] = []
    for path in sorted(set(paths)):
        if not any(path.is_relative_to(folder) for folder in kept):
            kept.append(path)
    return tuple(kept)
