"""What tests share: an outputs folder of their own each, the bundled model, and one real endpoint for the whole session.

`endpoint` starts vLLM, which takes half a minute; every test that uses it is marked `slow` by itself. Heavy packages are
imported by the fixtures that need them and by nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import re
import signal
import sys
import textwrap
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests import changed, tiers, warm

from llmbench import assets, recipe
from llmbench.recipe import RagRecipe, ServeRecipe

if "PYTEST_XDIST_WORKER_COUNT" in os.environ:
    # Processes that share the cores share out the threads, too: OpenMP's threads wait for one another, half as long again in
    # CPU seconds for a training. What starts from here inherits it.
    os.environ.setdefault(
        "OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])))
    )

gc.set_threshold(100_000, 20, 20)  # most of what tests make goes without the collector, which took a third of a training's time


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--changed BASE`."""
    parser.addoption("--changed", metavar="BASE", help="run only what differs from this branch of git may concern")


NODE_IDS = pytest.StashKey[frozenset[str]]()
"""The names of all cases of the files that were collected; of none where single tests were asked for."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Marks what needs vLLM as slow, and the expensive and the long tests. The files that take longest come first.

    Processes take one file after another: a file of minutes that comes last is waited for by all others.
    """
    weight: Counter[Path] = Counter()
    whole = not any("::" in asked for asked in config.args)
    config.stash[NODE_IDS] = frozenset(item.nodeid for item in items if whole)
    for item in items:
        if "endpoint" in getattr(item, "fixturenames", ()):
            assert _asks_the_endpoint(item.path), f"{item.path}: write `endpoint: Served`, by which its file is known"
            item.add_marker(pytest.mark.slow)
        given = item.callspec.params if hasattr(item, "callspec") else {}
        if tiers.is_expensive(item.nodeid, set(getattr(item, "fixturenames", ())) - given.keys()):
            item.add_marker("expensive")
        if tiers.is_long(item.nodeid):
            item.add_marker("long")
        weight[item.path] += 10 * bool(item.get_closest_marker("slow")) + 2 * bool(item.get_closest_marker("expensive"))
    items.sort(key=lambda item: -weight[item.path])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hands files out to the processes as `--dist loadfile` does, but some together to one of them.

    What uses `endpoint` comes together; where expensive tests are left out, each room does, and all that import PEFT and TRL,
    so that one process imports what quick tests need, and not each: ten seconds.
    """
    from xdist.scheduler import LoadFileScheduling

    if config.getoption("dist") != "loadfile":
        return None

    quick = "not expensive" in config.getoption("markexpr")

    class OneEndpoint(LoadFileScheduling):  # type: ignore[misc]
        """A start of vLLM takes 17 CPU seconds, an adapter and an index as much again: one process makes them, not each."""

        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            if quick:
                room = "/".join(str(file).split("/")[:2])
                return "tests/training" if room in tiers.TRAINING else room
            return "endpoint" if _asks_the_endpoint(config.rootpath / file) else str(file)

    return OneEndpoint(config, log)


@cache
def _asks_the_endpoint(file: Path) -> bool:
    return re.search(r"\bendpoint: (\w+\.)?(Served|Any|Endpoint)\b", file.read_text(encoding="utf-8")) is not None


HEAVY = {
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "vllm",
    "faiss",
    "sentence_transformers",
    "sklearn",
    "gradio",
    "openai",
}
COLLECTED = pytest.StashKey[set[str]]()
"""Which heavy packages had been imported when all tests were collected."""


def pytest_collection_finish(session: pytest.Session) -> None:
    """Notes what collecting has imported."""
    session.config.stash[COLLECTED] = HEAVY & sys.modules.keys()


KEPT = pytest.StashKey[int]()
"""How many modules there were when what they hold was last taken out of the garbage collector's sight."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Spares the garbage collector what imports have made, a million objects with TRL: half a second for each look at them."""
    if len(sys.modules) > item.config.stash.get(KEPT, 0) + 300:
        gc.collect()  # so that what a test left unclosed is told, and not kept
        gc.freeze()
        atexit.register(gc.unfreeze)
        item.config.stash[KEPT] = len(sys.modules)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out, unread, the files that no change concerns."""
    base = config.getoption("--changed")
    if base is None or not collection_path.name.startswith("test_"):
        return None
    found = changed.files(base)
    if found is None:
        raise pytest.UsageError(f"--changed {base}: git knows no such branch here. Name another, or leave it out")
    return None if changed.concerns(collection_path, found) else True


PAGES = {
    "kettle.md": "# Alba kettle\n\nThe Alba kettle is red. It weighs 300 grams and costs 40 euros.\n",
    "lamp.md": "# Borin lamp\n\nThe Borin lamp is made of brass. It weighs 900 grams.\n",
    "refunds.md": "# Refund policy\n\nRefunds take 14 days. Ask Cora about them.\n",
}


@dataclass(frozen=True)
class Served:
    """The session's endpoint. `adapter` is PEFT's folder, `log` vLLM's log, `socket` where vLLM itself answers."""

    base_url: str
    variants: tuple[str, ...]
    adapter: Path
    pipeline: Path
    log: Path
    socket: Path


class Mark:
    """A variable in the environment that a process hands on to all its descendants, so that each of them can be found.

    A process that changes its title, as vLLM's do, overwrites its environment, so every process of a session in which one
    with the mark was seen counts too: look once while they all live.
    """

    name = "LLMBENCH_TEST_MARK"

    def __init__(self) -> None:
        self.value = uuid.uuid4().hex
        self.env = os.environ | {self.name: self.value}
        self._sessions: set[int] = set()

    def alive(self) -> dict[int, str]:
        """Process id -> command line of every living process that carries the mark or is of a marked session."""
        sessions, marked, lines = {}, set(), {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state, _, _, session = (entry / "stat").read_bytes().rsplit(b") ", 1)[1].split()[:4]
                    if state == b"Z":
                        continue
                    pid = int(entry.name)
                    lines[pid] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    sessions[pid] = int(session)
                    if f"{self.name}={self.value}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                        marked.add(pid)
        self._sessions |= {sessions[pid] for pid in marked} - {os.getsid(0)}
        return {pid: line for pid, line in lines.items() if pid in marked or sessions[pid] in self._sessions}

    def left(self, seconds: float = 30.0) -> dict[int, str]:
        """What is still alive after at most that time; stops waiting when nothing is."""
        end = time.monotonic() + seconds
        while (found := self.alive()) and time.monotonic() < end:
            time.sleep(0.1)
        return found


if (
    signal.getsignal(signal.SIGINT) is signal.SIG_IGN
):  # begun in the background by a shell: the programs under test would be deaf
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The outputs folder of one test."""
    folder = tmp_path / "outputs"
    monkeypatch.setenv("LLMBENCH_HOME", str(folder))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("LLMBENCH_CACHE", raising=False)
    return folder


@pytest.fixture(scope="session")
def common_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that tests share which embed and are not about the cache."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def kept_session() -> Callable[[Path | bytes], Any]:
    """Opens a session of ONNX Runtime, or gives the one that was opened for that file before; several threads may use one."""
    from llmbench.retrieval.embedding.light import runtime

    return cache(runtime._onnx)


@pytest.fixture
def kept_embedder(
    common_cache: Path, kept_session: Callable[[Path | bytes], Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The embedder's graph, which takes a second and 88 MB to write, is the one that the first of these tests wrote."""
    monkeypatch.setenv("LLMBENCH_CACHE", str(common_cache))
    monkeypatch.setattr("llmbench.retrieval.embedding.light.runtime._onnx", kept_session)


@pytest.fixture
def collected(pytestconfig: pytest.Config) -> set[str]:
    """The heavy packages that were imported when all tests were collected."""
    return pytestconfig.stash[COLLECTED]


@pytest.fixture
def node_ids(pytestconfig: pytest.Config) -> frozenset[str]:
    """The names of all cases of the files that were collected; of none where single tests were asked for."""
    return pytestconfig.stash[NODE_IDS]


@pytest.fixture
def mark() -> Iterator[Mark]:
    """A fresh mark; whatever still carries it at the end of the test is killed."""
    mark = Mark()
    yield mark
    for pid in mark.alive():
        if pid != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio alone, as the gateway does."""
    return "asyncio"


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The folder of the bundled base model."""
    return Path(assets.model_folder(assets.TINY))


@pytest.fixture(scope="session")
def lora(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the bundled model, saved by PEFT; its answers differ from the base's."""
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    program = """
        import sys, torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(model, config)
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.25)
        model.save_pretrained(sys.argv[2])

        from pathlib import Path
        from llmbench.training.merging import certifying

        certifying.certify(Path(sys.argv[2]))
    """
    done = warm.run("training", textwrap.dedent(program), str(tiny), str(folder), env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RAG pipeline over three pages, not indexed yet."""
    folder = tmp_path_factory.mktemp("pages")
    for name, text in PAGES.items():
        (folder / name).write_text(text, encoding="utf-8")
    path = folder / "pages.yaml"
    text = "name: pages\ndocuments: [kettle.md, lamp.md, refunds.md]\nsearch: {top_k: 2}\n"
    path.write_text(text + r'prompt: "Passages:\n{passages}\n\nQuestion: {question}"' + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def endpoint(lora: Path, pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A real vLLM with the bundled model and an adapter behind the gateway: `base`, `adapter`, `base-rag`, `adapter-rag`."""
    from llmbench.gateway import started

    folder = tmp_path_factory.mktemp("endpoint")
    variants = [
        {"name": "base"},
        {"name": "adapter", "adapter": str(lora)},
        {"name": "base-rag", "rag": str(pipeline)},
        {"name": "adapter-rag", "adapter": str(lora), "rag": str(pipeline)},
    ]
    document = {
        "variants": [v | {"sampling": {"max_tokens": 48}} for v in variants],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25, "max_adapters": 6},  # tests load their own
        "gateway": {"port": 0},
    }
    path = folder / "serve.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")  # JSON is YAML
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        _index(pipeline)
        with started(recipe.load(path, ServeRecipe)) as gateway:
            names = tuple(served.variant.name for served in gateway.models)
            yield Served(gateway.base_url, names, lora, pipeline, gateway.engine.log, gateway.engine.socket)


def _index(pipeline: Path) -> None:
    from llmbench import retrieval

    retrieval.build(recipe.load(pipeline, RagRecipe))
