"""A deployment over an engine that only notes what it is asked to load."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from tests.gateway.redis_server import Server

from llmbench.engine import BASE, Adapter
from llmbench.errors import EngineError
from llmbench.gateway.catalogue import Catalogue, Served
from llmbench.gateway.deployment import Deployment
from llmbench.gateway.grounding import Grounding
from llmbench.parity import Certificate, Parity
from llmbench.recipe import GatewaySpec, ServeRecipe, Variant


class FakeEngine:
    """Has room for `most` adapters; does not load what is in `refused`, and calls what is in `differing` not as trained."""

    def __init__(self, most: int = 3) -> None:
        self.most = most
        self.adapters: dict[str, Adapter] = {}
        self.refused: set[str] = set()
        self.differing: set[str] = set()
        self.calls: list[str] = []

    def refuse(self, adapter: Adapter) -> None:
        if adapter.rank > 16:
            raise EngineError(f"adapter {adapter.source} has rank {adapter.rank}. Start again")

    def load(self, adapter: Adapter) -> None:
        if adapter.id in self.adapters:
            return
        if adapter.source in self.refused or len(self.adapters) >= self.most:
            raise EngineError(f"vLLM does not load adapter {adapter.source}")
        self.calls.append(f"load {adapter.id}")
        self.adapters[adapter.id] = adapter

    def unload(self, id: str) -> None:
        self.calls.append(f"unload {id}")
        del self.adapters[id]

    def prove(self, adapter: Adapter) -> Parity | None:
        self.calls.append(f"prove {adapter.id}")
        state: Any = "differs" if adapter.source in self.differing else "proven"
        return Parity(state, "it is told", "retrain", 24, 100, 0.0, 0.1, 0.0, 1.0, 8)


class FakeWay:
    """Ends the answers of a model at once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self.watched: list[Served] = []
        self.cuts: list[str] = []
        self.allowed: list[str] = []

    def cut(self, model: str, reason: str) -> None:
        self.cuts.append(model)
        for served in self.watched:
            served.requests.running = 0

    def allow(self, model: str) -> None:
        self.allowed.append(model)


class FakeStore:
    """Adapters by reference; the content may change. One that is missing cannot be admitted."""

    def __init__(self) -> None:
        self.contents: dict[str, str] = {}
        self.ranks: dict[str, int] = {}
        self.uncertified: set[str] = set()

    def admit(self, recipe: ServeRecipe, name: str, reference: str) -> Adapter:
        if reference not in self.contents:
            raise EngineError(f"variant {name}: adapter {reference} is neither a folder nor a run")
        id, rank = self.contents[reference], self.ranks.get(reference, 8)
        certificate = None if reference in self.uncertified else cast(Certificate, object())
        return Adapter(id, reference, Path("/store") / id, rank, certificate=certificate)


class FakeGrounder:
    """A pipeline that notes whether it is open."""

    def __init__(self) -> None:
        self.closed = False

    def ground(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Bench:
    """A deployment with its fakes: `base` and `first` (adapter `run-1`, content `a1`) are served."""

    def __init__(self, **sections: Any) -> None:
        self.engine, self.store = FakeEngine(), FakeStore()
        self.store.contents = {"run-1": "a1", "run-2": "a2", "run-3": "a3", "run-4": "a4"}
        self.said: list[str] = []
        self.applied: list[GatewaySpec] = []
        self.opened: dict[str, FakeGrounder] = {}
        variants = [{"name": "base"}, {"name": "first", "adapter": "run-1"}]
        self.document: dict[str, Any] = {"variants": variants, "gateway": {"shutdown_timeout": 0.2}} | sections
        self.catalogue = Catalogue([Served(Variant(name="base"), BASE, {})], context=64)
        self.way = FakeWay(self.catalogue)
        self.deployment = Deployment(
            self.recipe(),
            self.catalogue,
            self.engine,
            self.way,
            groundings={},
            proofs={},
            apply=self.applied.append,
            say=self.said.append,
            admit=self.store.admit,
            open=self.open,
        )
        self.deployment.add(Variant(name="first", adapter="run-1"))
        self.engine.calls.clear()
        self.said.clear()

    def recipe(self, **changes: Any) -> ServeRecipe:
        """The serving document, with other sections in the place of its own."""
        return ServeRecipe.model_validate(self.document | changes)

    def open(self, path: Path) -> Grounding:
        def opening() -> FakeGrounder:
            if path.stem == "broken":
                raise EngineError("index broken is not built")
            return self.opened.setdefault(path.stem, FakeGrounder())

        return Grounding(path.stem, opening)

    def state(self) -> tuple[Any, ...]:
        """All that a change that fails must leave as it was."""
        known = self.catalogue.now.known
        return dict(known), dict(self.engine.adapters), dict(self.deployment.proofs), self.deployment.listing()

    def served(self, name: str) -> Served:
        return self.catalogue.now.known[name]

    def answers(self, served: Served, count: int) -> Served:
        """Lets a variant be answering that many requests; cutting them off ends them."""
        served.requests.running = count
        self.way.watched.append(served)
        return served


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """One for all tests of a process."""
    pytest.importorskip("redis", reason="redis-py is not installed: pip install 'llmbench[redis]'")
    if shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server here: apt-get install redis-server")
    server = Server()
    server.start()
    yield server
    server.close()


@pytest.fixture
def redis(redis_server: Server) -> Server:
    """An empty Redis."""
    redis_server.client.flushall()
    return redis_server


@pytest.fixture(autouse=True)
def _one_graph(kept_embedder: None) -> None:
    pass
