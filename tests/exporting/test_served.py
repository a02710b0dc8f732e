"""An export is a model like any other: vLLM serves its folder, under any name, and answers as the trained model did."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from llmbench import parity, recipe
from llmbench.recipe import ServeRecipe

from .conftest import Make


@pytest.mark.slow
def test_vllm_serves_an_export_and_answers_as_was_trained(made: Make, home: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    from llmbench.exporting import job
    from llmbench.gateway import started

    done = job.export(made("lora"), "merged", precision="float32", output=tmp_path / "exported")
    document = {
        "model": {"model_name_or_path": str(done.folder)},
        "variants": [{"name": "exported", "sampling": {"max_tokens": parity.GREEDY_TOKENS, "temperature": 0.0}}],
        "engine": {"dtype": "float32", "cpu_kv_cache_gib": 0.25},
        "gateway": {"port": 0},
    }
    path = tmp_path / "serve.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    certificate = parity.read(done.folder)
    assert certificate is not None
    tokenizer = AutoTokenizer.from_pretrained(str(done.folder))
    written = [(probe.messages, probe.trained.greedy) for probe in certificate.probes if probe.trained.greedy]
    with started(recipe.load(path, ServeRecipe)) as gateway:
        answers = []
        for messages, _ in written:
            body = {"model": "exported", "messages": list(messages)}
            answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, timeout=120, trust_env=False)
            answers.append(answer.raise_for_status().json()["choices"][0]["message"]["content"])
    end = tokenizer.eos_token_id
    wanted = [tokenizer.decode(list(ids[: ids.index(end)] if end in ids else ids)) for _, ids in written]
    assert len(written) == 4 and answers == wanted
