"""Adapters proven against their training, and each ingredient spoiled once: with the real vLLM, PEFT and transformers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from llmbench import engine, parity, recipe
from llmbench.engine import loading
from llmbench.errors import EngineError
from llmbench.parity import Certificate, Parity
from llmbench.recipe import ServeRecipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Running:
    """Where a vLLM answers that has one good adapter and its spoiled copies, whose certificates are the good one's."""

    socket: Path
    adapters: dict[str, engine.Adapter]
    certificate: Certificate

    def verdict(self, name: str, certificate: Certificate | None = None) -> Parity:
        adapter = replace(self.adapters[name], certificate=certificate or self.certificate)
        return engine.prove(self.socket, [adapter])[adapter.id]


def spoiled(lora: Path, folder: Path, kind: str) -> Path:
    """A copy of an adapter with one ingredient changed."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(lora, folder)
    if kind == "halved":
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 2}))
        return folder
    tensors = load_file(folder / "adapter_model.safetensors")
    b = sorted(name for name in tensors if "lora_B" in name)
    q = [name for name in b if "q_proj" in name]
    if kind == "swapped":
        tensors[q[0]], tensors[q[1]] = tensors[q[1]].clone(), tensors[q[0]].clone()
    for name in {"lost": q[:1], "deaf": b}.get(kind, []):
        tensors[name] = tensors[name] * 0
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


class Served(Protocol):
    """The fixture of tests/conftest.py."""

    socket: Path


@pytest.fixture(scope="module")
def running(lora: Path, endpoint: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The session's vLLM with the spoiled copies beside its own adapter, which is the good one; they go in the end."""
    folder = tmp_path_factory.mktemp("spoiled")
    places = {"good": lora} | {kind: spoiled(lora, folder / kind, kind) for kind in ("halved", "swapped", "lost", "deaf")}
    document = {
        "variants": [{"name": name, "adapter": str(place)} for name, place in places.items()],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25},
    }
    path = folder / "serve.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        serving = recipe.load(path, ServeRecipe)
        admitted = engine.admit_all(serving)
    adapters = {name: admitted[str(place)] for name, place in places.items()}
    certificate = parity.read(lora)
    assert certificate is not None
    for kind in adapters.keys() - {"good"}:
        loading.load(endpoint.socket, adapters[kind])
    yield Running(endpoint.socket, adapters, certificate)
    for kind in adapters.keys() - {"good"}:
        loading.unload(endpoint.socket, adapters[kind].id)


def test_a_served_adapter_is_proven_to_five_digits(running: Running) -> None:
    found = running.verdict("good")
    assert found.state == "proven" and found.difference is not None and found.effect is not None
    assert found.difference < 1e-4 < found.effect
    assert found.greedy_same == found.probes == 24


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("halved", "the adapter's strength is 0.5 of what was trained"),
        ("swapped", "nats a token from what was trained"),
        ("lost", "nats a token from what was trained"),
        ("deaf", "it answers as the base: the adapter has no effect"),
    ],
)
def test_each_spoiled_ingredient_is_named(running: Running, kind: str, says: str) -> None:
    found = running.verdict(kind)
    assert found.state == "differs" and re.search(says, found.reason), found
    assert found.remedy


def test_another_chat_template_is_named_by_the_first_token_that_differs(running: Running, lora: Path, tiny: Path) -> None:
    """The server has the base's template; this training had another."""
    found = running.verdict("good", trained(lora, tiny, template="{% for m in messages %}{{ m['content'] }}\n{% endfor %}"))
    assert found.state == "differs" and "the chat template or the tokenizer differs: 24 of 24 prompts" in found.reason
    assert "--chat-template" in found.remedy


def test_another_base_is_told_from_a_faulty_adapter(running: Running, lora: Path, tiny: Path) -> None:
    found = running.verdict("good", trained(lora, tiny, noise=0.02))
    assert found.state == "differs" and "the base answers otherwise than the one that was trained on" in found.reason


def trained(lora: Path, tiny: Path, *, template: str | None = None, noise: float = 0.0) -> Certificate:
    """The certificate of the same adapter, had it been trained with another template, or on another base."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llmbench.training import certificate

    tokenizer: Any = AutoTokenizer.from_pretrained(tiny)
    tokenizer.chat_template = template or tokenizer.chat_template
    model: Any = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.float32)
    dice = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight += noise * torch.randn(weight.shape, generator=dice)
    model = PeftModel.from_pretrained(model, str(lora))
    return certificate.of(model, tokenizer, dtype=torch.float32, quantized=False, base={}, folder=lora)


def test_prompts_of_two_requests_in_one_batch_do_not_end_the_worker(running: Running) -> None:
    """vLLM's own function multiplies the rows of one prompt with the adapters of all requests of the batch."""
    from concurrent.futures import ThreadPoolExecutor

    def ask(number: int) -> bool:
        body = {"model": running.adapters["good"].id, "prompt_logprobs": 0, "max_tokens": 12, "ignore_eos": True}
        body |= {"messages": [{"role": "user", "content": f"Count to {number}, then {'again ' * number}"}]}
        return client.post("http://engine/v1/chat/completions", json=body).is_success

    with httpx.Client(transport=httpx.HTTPTransport(uds=str(running.socket)), timeout=120) as client:
        with ThreadPoolExecutor(16) as pool:
            assert all(pool.map(ask, range(2, 34)))
        assert client.get("http://engine/health").is_success


def test_an_adapter_without_a_certificate_is_told_before_anything_starts(
    lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbench.gateway import started

    bare = tmp_path / "bare"
    shutil.copytree(lora, bare)
    (bare / parity.FILE).unlink()
    path = tmp_path / "serve.yaml"
    path.write_text(json.dumps({"variants": [{"name": "a", "adapter": str(bare)}], "gateway": {"port": 0}}))
    monkeypatch.setattr(engine.Engine, "start", lambda self: pytest.fail("vLLM was started"))
    with (
        pytest.raises(EngineError, match=rf"has no certificate.* llmbench certify {re.escape(str(bare))}.*parity=warn"),
        started(recipe.load(path, ServeRecipe)),
    ):
        pass
    shutil.copyfile(lora / parity.FILE, bare / parity.FILE)
    config = json.loads((bare / "adapter_config.json").read_text())
    (bare / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 4}))
    with (
        pytest.raises(
            EngineError, match=r"adapter_config.json \(lora_alpha 16 then, 4 now\) changed since it was certified.* --again"
        ),
        started(recipe.load(path, ServeRecipe)),
    ):
        pass
