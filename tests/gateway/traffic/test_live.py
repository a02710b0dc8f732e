"""Canaries on a real vLLM: an adapter that answers badly is rolled back, one that answers well gets all requests."""

from __future__ import annotations

import json
import os
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests import warm

from llmbench import recipe
from llmbench.gateway import Gateway, started
from llmbench.gateway.traffic import Control
from llmbench.recipe import Guardrails, RolloutSpec, ServeRecipe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the adapters, the document and the outputs."""
    return tmp_path_factory.mktemp("canaries")


@pytest.fixture(scope="module")
def gateway(tiny: Path, lora: Path, folder: Path) -> Iterator[Gateway]:
    """The base behind the route `support`, an adapter `same` that changes nothing, and one `noise` that babbles."""
    program = """
        import sys, torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        for std, name in ((0.0, "same"), (0.5, "noise")):
            torch.manual_seed(2)
            base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
            model = PeftModel.from_pretrained(base, sys.argv[2])
            for weight_name, weight in model.named_parameters():
                if "lora_B" in weight_name:
                    torch.nn.init.normal_(weight, std=std)
            model.save_pretrained(f"{sys.argv[3]}/{name}")
    """
    arguments = (str(tiny), str(lora), str(folder))
    done = warm.run("training", textwrap.dedent(program), *arguments, env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    document = {
        "variants": [{"name": "base"}, *({"name": name, "adapter": str(folder / name)} for name in ("same", "noise"))],
        "routes": [
            {
                "name": "support",
                "variants": {"base": 1},
                "rollout": {"plan": [30, 50, 100], "least": 8},
                "guardrails": {"errors": 0.3, "first_token": None, "abstention": None, "citations": None},
                "shadow": {"variant": "same", "share": 100, "busy": 50},
            }
        ],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25},
        "parity": "off",
        "gateway": {"port": 0},
    }
    path = folder / "serve.yaml"
    path.write_text(json.dumps(document))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMBENCH_HOME", str(folder / "outputs"))
        with started(recipe.load(path, ServeRecipe)) as found:
            yield found


@pytest.fixture
def control(gateway: Gateway) -> Control:
    assert gateway.rollouts is not None
    return gateway.rollouts


def ask(gateway: Gateway, user: str) -> httpx.Response:
    question = f"Passages:\n[1] The Alba kettle weighs {len(user)} grams.\n\nQuestion: How heavy is the Alba kettle?"
    body = {"model": "support", "messages": [{"role": "user", "content": question}], "user": user, "max_tokens": 60}
    return httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=120)


def run(gateway: Gateway, control: Control, name: str) -> dict[str, Any]:
    """Asks until a rollout has ended; how it stands then."""
    end, number = time.monotonic() + 300, 0
    with ThreadPoolExecutor(8) as pool:
        while control.status("support")["state"] == "running" and time.monotonic() < end:
            answers = list(pool.map(lambda i: ask(gateway, f"{name} {i}"), range(number, number + 16)))
            assert {answer.status_code for answer in answers} == {200}
            number += 16
    return control.status("support")


def test_an_adapter_that_babbles_is_rolled_back_with_its_evidence(gateway: Gateway, control: Control) -> None:
    control.start("support", "noise")
    status = run(gateway, control, "first")
    assert status["state"] == "rolled back", status
    evidence = {one["rail"]: one for one in status["audit"][-1]["evidence"]}["length"]
    assert evidence["state"] == "worse" and evidence["canary"] > 2 * evidence["control"]
    assert {ask(gateway, f"later {i}").headers["x-llmbench-variant"] for i in range(10)} == {"base"}


def test_an_adapter_that_answers_as_well_gets_all_requests(gateway: Gateway, control: Control) -> None:
    control.start("support", "same")
    status = run(gateway, control, "second")
    assert status["state"] == "promoted", status
    assert {ask(gateway, f"later {i}").headers["x-llmbench-variant"] for i in range(10)} == {"same"}


def test_votes_on_its_answers_reach_the_rollout(gateway: Gateway, control: Control) -> None:
    weights = gateway.deployment.routes.now["support"].weights
    canary = next(name for name in ("same", "base") if not weights.get(name))
    even = RolloutSpec(plan=[50, 100], least=1_000)
    control.start("support", canary, rollout=even, guardrails=Guardrails(votes=0.1, length=None))
    answers = [ask(gateway, f"third {i}") for i in range(16)]
    for answer in answers:
        body = {"request_id": answer.headers["x-request-id"], "value": answer.headers["x-llmbench-variant"] == canary}
        assert httpx.post(f"{gateway.base_url}/feedback", json=body).status_code == 200
    control.look()
    status = control.status("support")
    (votes,) = [one for one in status["evidence"] if one["rail"] == "votes"]
    assert votes["canary_n"] + votes["control_n"] == 16 and (votes["canary"], votes["control"]) == (1.0, 0.0)
    control.abort("support")


def test_the_shadow_answered_next_to_the_base(gateway: Gateway, folder: Path) -> None:
    (path,) = (folder / "outputs" / "shadows").glob("*/support.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["variant"] for line in lines} == {"base", "noise"}
    assert all(line["shadow"]["variant"] == "same" and line["shadow"]["error"] is None for line in lines)
    assert all(line["text"] and line["shadow"]["text"] for line in lines)
