"""Variants that come and go while a real vLLM answers, and a vLLM that dies: one engine for the whole file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from tests import warm

from llmbench import parity, recipe
from llmbench.engine import loading
from llmbench.errors import EngineError, LlmbenchError
from llmbench.gateway import Gateway, started
from llmbench.parity import Certificate
from llmbench.recipe import ServeRecipe, Variant

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

T = TypeVar("T")
QUESTION = "Tell me a long story about a lamp, a kettle and a cat."
LONG = {"max_tokens": 500, "ignore_eos": True}


class Live:
    """A running gateway, whose changes a thread makes; `failure` is what ended that thread."""

    def __init__(self, gateway: Gateway, adapters: dict[str, Path], path: Path) -> None:
        self.gateway, self.adapters, self.path = gateway, adapters, path
        self.failure: BaseException | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._attend)
        self._thread.start()

    def _attend(self) -> None:
        try:
            while not self._done.is_set():
                self.gateway.attend(0.05)
        except EngineError as error:
            self.failure = error

    def end(self) -> None:
        self._done.set()
        self._thread.join()
        assert self.failure is None

    def do(self, work: Callable[[], T]) -> T:
        return self.gateway.ask(work).result(300)

    def add(self, name: str, adapter: str) -> None:
        self.do(lambda: self.gateway.deployment.add(Variant(name=name, adapter=str(self.adapters[adapter]))))

    def remove(self, name: str, drain: float | None = None) -> int:
        return self.do(lambda: self.gateway.deployment.remove(name, drain=drain))

    def reload(self, *variants: dict[str, Any]) -> Any:
        document = json.loads(self.path.read_text()) | {"variants": list(variants)}
        path = self.path.with_name("reloaded.yaml")
        path.write_text(json.dumps(document))
        return self.do(lambda: self.gateway.deployment.reload(recipe.load(path, ServeRecipe)))

    def post(self, name: str) -> httpx.Response:
        body = {"model": name, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12, "ignore_eos": True}
        return httpx.post(f"{self.gateway.base_url}/chat/completions", json=body, timeout=120)

    def text(self, name: str) -> str:
        response = self.post(name)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    def engine_models(self) -> set[str]:
        """What vLLM itself says that it has."""
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.gateway.engine.socket))) as client:
            return {model["id"] for model in client.get("http://engine/v1/models").json()["data"]}

    def processes(self) -> dict[int, str]:
        """vLLM's: id -> name."""
        process = self.gateway.engine._process
        assert process is not None
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getsid(int(entry.name)) == process.pid:
                    found[int(entry.name)] = (entry / "comm").read_text().strip()
            except OSError:
                continue
        return found


class Stream:
    """An answer that is read in a thread, event by event."""

    def __init__(self, live: Live, name: str) -> None:
        self.events: list[str] = []
        self.begun = threading.Event()
        self._live, self._name = live, name
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.begun.wait(60)

    def _read(self) -> None:
        body = {"model": self._name, "messages": [{"role": "user", "content": QUESTION}], "stream": True} | LONG
        with httpx.stream("POST", f"{self._live.gateway.base_url}/chat/completions", json=body, timeout=120) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(line.removeprefix("data: "))
                    if len(self.events) > 2:
                        self.begun.set()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> list[str]:
        self._thread.join(120)
        assert not self.running
        return self.events


@pytest.fixture(scope="module")
def adapters(tiny: Path, lora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`one` to `three`, whose answers differ, and `wrong`, whose certificate is that of `one` at full strength."""
    folder = tmp_path_factory.mktemp("adapters")
    program = """
        import sys, torch
        from pathlib import Path
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from llmbench.training.merging import certifying

        for seed, name in ((2, "two"), (3, "three")):
            torch.manual_seed(seed)
            base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
            model = PeftModel.from_pretrained(base, sys.argv[2])
            for weight_name, weight in model.named_parameters():
                if "lora_B" in weight_name:
                    torch.nn.init.normal_(weight, std=0.25)
            model.save_pretrained(f"{sys.argv[3]}/{name}")
            certifying.certify(Path(sys.argv[3]) / name)
    """
    done = warm.run(
        "training", textwrap.dedent(program), str(tiny), str(lora), str(folder), env=os.environ | {"HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    wrong = folder / "wrong"
    shutil.copytree(lora, wrong)
    config = json.loads((wrong / "adapter_config.json").read_text())
    (wrong / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 2}))
    certificate = parity.read(wrong)
    assert certificate is not None
    parity.write(replace(certificate, files=Certificate.files_of(wrong)), wrong)
    return {"one": lora, "two": folder / "two", "three": folder / "three", "wrong": wrong}


@pytest.fixture(scope="module")
def live(adapters: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """`base` and `kept` (adapter one), with room for three adapters."""
    folder = tmp_path_factory.mktemp("live")
    document = {
        "variants": [{"name": "base"}, {"name": "kept", "adapter": str(adapters["one"])}],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25, "max_adapters": 3},
        "gateway": {"port": 0},
    }
    path = folder / "serve.yaml"
    path.write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        with started(recipe.load(path, ServeRecipe)) as gateway:
            made = Live(gateway, adapters, path)
            try:
                yield made
            finally:
                made.end()


@pytest.fixture(autouse=True)
def home(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's outputs, where adapters that are added are stored."""
    monkeypatch.setenv("LLMBENCH_HOME", str(live.path.parent / "outputs"))


@pytest.fixture(scope="module")
def texts(live: Live) -> dict[str, str]:
    """What each adapter, and the base, answers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(live.path.parent / "outputs"))
        found = {"base": live.text("base"), "one": live.text("kept")}
        for name in ("two", "three"):
            live.add("for-now", name)
            found[name] = live.text("for-now")
            live.remove("for-now")
    assert len(set(found.values())) == 4
    return found


@contextmanager
def offered(live: Live, name: str, adapter: str) -> Iterator[None]:
    live.add(name, adapter)
    try:
        yield
    finally:
        live.remove(name)


def test_a_variant_is_added_while_streams_run(live: Live, texts: dict[str, str]) -> None:
    streams = [Stream(live, name) for name in ("base", "kept")]
    with offered(live, "mine", "two"):
        card = httpx.get(f"{live.gateway.base_url}/models/mine").json()
        assert card["parity"] == "proven" and card["adapter"]["id"] in live.engine_models()
        assert live.text("mine") == texts["two"]
        for stream in streams:
            assert stream.end()[-1] == "[DONE]"
    assert live.post("mine").status_code == 404


@pytest.mark.parametrize("kind", ["wrong", "changed", "gone"])
def test_a_wrong_adapter_is_refused_and_nothing_changes(live: Live, texts: dict[str, str], tmp_path: Path, kind: str) -> None:
    reference = "gone"
    if kind == "wrong":
        reference = str(live.adapters["wrong"])
    elif kind == "changed":
        reference = str(shutil.copytree(live.adapters["two"], tmp_path / "changed"))
        shutil.copyfile(live.adapters["three"] / "adapter_model.safetensors", tmp_path / "changed/adapter_model.safetensors")
    before = live.engine_models(), live.gateway.deployment.listing()
    said = {
        "wrong": "strength is 0.5 of what was trained",
        "changed": "changed since it was certified",
        "gone": "neither a folder nor a run",
    }[kind]
    with pytest.raises(LlmbenchError, match=said):
        live.do(lambda: live.gateway.deployment.add(Variant(name="bad", adapter=reference)))
    assert (live.engine_models(), live.gateway.deployment.listing()) == before
    assert live.text("kept") == texts["one"]


def test_a_removed_variant_ends_its_answers_before_its_adapter_goes(live: Live, texts: dict[str, str]) -> None:
    live.add("mine", "two")
    stream = Stream(live, "mine")
    removing = live.gateway.ask(lambda: live.gateway.deployment.remove("mine", drain=120))
    while live.post("mine").status_code != 404:
        time.sleep(0.02)
    assert removing.result(120) == 0
    events = stream.end()
    assert events[-1] == "[DONE]" and len(events) > 250
    assert len(live.engine_models()) == 2  # the base and `kept`'s


def test_an_answer_that_takes_too_long_ends_in_an_error_event(live: Live, texts: dict[str, str]) -> None:
    live.add("mine", "two")
    other = Stream(live, "kept")
    stream = Stream(live, "mine")  # the last, so that it has most of its answer before it
    assert live.remove("mine", drain=0) == 1
    assert "removed before this answer was complete" in json.loads(stream.end()[-1])["error"]["message"]
    assert other.end()[-1] == "[DONE]"
    with offered(live, "again", "two"):
        assert live.text("again") == texts["two"]


def test_the_public_port_loads_and_unloads_nothing(live: Live) -> None:
    url = live.gateway.base_url.removesuffix("/v1")
    id = next(iter(live.gateway.engine.adapters))
    for path in ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/variants", "/reload", "/adapters"):
        body = {"lora_name": id, "lora_path": str(live.adapters["two"]), "name": "x"}
        assert httpx.post(f"{url}{path}", json=body).status_code == 404
    assert id in live.engine_models()


def test_vllm_itself_takes_no_second_content_under_a_name(live: Live) -> None:
    adapter = next(iter(live.gateway.engine.adapters.values()))
    with pytest.raises(EngineError, match="has already been loaded"):
        loading._ask(live.gateway.engine.socket, "load", {"lora_name": adapter.id, "lora_path": str(live.adapters["two"])})


def test_an_adapter_whose_stored_copy_has_gone_does_not_reach_vllm(live: Live, tmp_path: Path) -> None:
    adapter = next(iter(live.gateway.engine.adapters.values()))
    with pytest.raises(EngineError, match="is missing"):
        loading.load(live.gateway.engine.socket, replace(adapter, id="0" * 16, folder=tmp_path / "nowhere"))
    assert live.gateway.engine.problem is None


def test_a_run_that_was_trained_again_is_served_anew_after_a_reload(live: Live, texts: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(live.adapters["two"], folder)
    kept = {"name": "kept", "adapter": str(live.adapters["one"])}
    mine = {"name": "mine", "adapter": str(folder)}
    assert live.reload({"name": "base"}, kept, mine).added == ["mine"]
    assert live.text("mine") == texts["two"]
    shutil.rmtree(folder)
    shutil.copytree(live.adapters["three"], folder)
    assert live.reload({"name": "base"}, kept, mine).changed == ["mine"]
    assert live.text("mine") == texts["three"]
    assert live.reload({"name": "base"}, kept).removed == ["mine"]


def test_a_server_that_is_full_says_so(live: Live) -> None:
    with offered(live, "a", "two"), offered(live, "b", "three"):
        before = live.engine_models()
        live.gateway.deployment.recipe = live.gateway.deployment.recipe.model_copy(update={"parity": "warn"})
        with pytest.raises(EngineError, match=r"was started for 3 adapters.*engine\.max_adapters"):
            live.add("c", "wrong")
        live.gateway.deployment.recipe = live.gateway.deployment.recipe.model_copy(update={"parity": "require"})
        assert live.engine_models() == before


class Load:
    """Asks variants over and over; what was answered wrongly, and how often it was right."""

    def __init__(self, live: Live, wanted: dict[str, str]) -> None:
        self.wrong: list[str] = []
        self.right = dict.fromkeys(wanted, 0)
        self._live, self._done = live, threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=item) for item in wanted.items()]
        for thread in self._threads:
            thread.start()

    def _ask(self, name: str, text: str) -> None:
        comes_and_goes = name not in ("base", "kept")
        while not self._done.is_set():
            response = self._live.post(name)
            if response.status_code == 404 and comes_and_goes:
                time.sleep(0.02)
            elif response.status_code != 200 or response.json()["choices"][0]["message"]["content"] != text:
                self.wrong.append(f"{name}: {response.status_code} {response.text[:300]}")
            else:
                self.right[name] += 1
            time.sleep(0.02)

    def end(self) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()


def descriptors(live: Live) -> dict[str, int]:
    """Open files of this process and of each of vLLM's."""
    pids = {os.getpid(): "gateway"} | live.processes()
    return {f"{name} {pid}": len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid, name in pids.items()}


@pytest.mark.parametrize("rounds", [3, 8])
def test_loads_and_unloads_lose_no_request_and_mix_up_no_answer(live: Live, texts: dict[str, str], rounds: int) -> None:
    """Two of each in a round; benchmarks/soak.py does hundreds."""
    deployment = live.gateway.deployment
    deployment.recipe = deployment.recipe.model_copy(update={"parity": "off"})  # proven once above; here the texts are compared
    load = Load(live, {"base": texts["base"], "kept": texts["one"], "odd": texts["two"], "even": texts["three"]})
    before: dict[str, int] = {}
    try:
        for number in range(rounds):
            live.add("odd", "two")
            live.add("even", "three")
            assert (live.text("odd"), live.text("even")) == (texts["two"], texts["three"])
            live.remove("odd")
            live.remove("even")
            before = before or (descriptors(live) if number == rounds // 3 else {})
    finally:
        load.end()
        deployment.recipe = deployment.recipe.model_copy(update={"parity": "require"})
    assert load.wrong == []
    assert all(count > 0 for count in load.right.values()), load.right
    after = descriptors(live)
    assert {name: count for name, count in after.items() if count > before[name] + 8} == {}
    assert len(live.engine_models()) == 2 and live.gateway.engine._lost == 0
    assert live.text("base") == texts["base"]


def test_an_engine_that_dies_is_started_again_and_answers_the_same(live: Live, texts: dict[str, str]) -> None:
    live.add("added", "two")
    first = live.gateway.engine._process
    os.kill(next(pid for pid, name in live.processes().items() if name == "VLLM::EngineCor"), signal.SIGKILL)
    meanwhile: list[httpx.Response] = []
    end = time.monotonic() + 240
    while (live.gateway.engine._process is first or live.gateway.state != "running") and time.monotonic() < end:
        meanwhile.append(live.post("added"))
        time.sleep(0.2)
    assert live.failure is None and live.gateway.state == "running"
    refused = [response for response in meanwhile if "being started again" in response.text]
    assert refused and all((response.status_code, response.headers["retry-after"]) == (503, "5") for response in refused)
    answered = [response for response in meanwhile if response.status_code == 200]  # the last one may be
    assert {response.status_code for response in meanwhile} <= {200, 500, 502, 503}
    assert all(response.json()["choices"][0]["message"]["content"] == texts["two"] for response in answered)
    assert (live.text("base"), live.text("kept"), live.text("added")) == (texts["base"], texts["one"], texts["two"])
    live.remove("added")
    with offered(live, "late", "three"):
        assert live.text("late") == texts["three"]
