"""Models of 28 kinds with default settings: what is adapted, the loss against the base's own, what is saved and refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbench import architecture, runs, training
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import TrainRecipe
from llmbench.recipe.servability import servability

from .architectures import EXPERTS, KINDS, LINEARS, config
from .conftest import IDS, Write, write_recipe

Make = Callable[[str], Path]

FAST = {"llama", "gpt2", "gemma2", "bloom", "mixtral", "glm4_moe", "gpt_oss", "mamba", "lfm2", "modernbert-decoder"}
"""One kind of each family (dense, Conv1D, no fused attention, mixtures with and without shared experts, state space, hybrid);
the others take longer together than a quick run may, and are slow."""


@pytest.fixture(scope="module")
def make(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """The folder of a tiny model of a kind, made once."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("kinds")

    def made(kind: str) -> Path:
        path = folder / kind
        if not path.exists():
            torch.manual_seed(0)
            transformers.AutoModelForCausalLM.from_config(config(kind)).save_pretrained(path)  # type: ignore[no-untyped-call]
            for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
                shutil.copyfile(tiny / name, path / name)
        return path

    return made


ONE = ("training.max_steps=1", "training.warmup_steps=0", "data.train.0.limit=6", "training.learning_rate=1e-2")


def document(folder: Path, base: Path, name: str, *overrides: str, **sections: Any) -> TrainRecipe:
    model = {"model_name_or_path": str(base), "dtype": "float32"}
    return write_recipe(folder, name, *ONE, *overrides, **{"model": model, **sections})


def own_loss(base: Path, rows: Any) -> float:
    """The mean negative log-likelihood of the learned tokens by the base alone, in transformers."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.eval()
    total = count = 0.0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            scores = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        learned = labels != -100
        total -= float(scores[learned].gather(1, labels[learned, None]).sum())
        count += int(learned.sum())
    return total / count


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([IDS]), use_cache=False).logits[0].float()


@pytest.mark.parametrize("kind", [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS])
def test_a_kind_is_trained_with_default_settings(kind: str, make: Make, tmp_path: Path, home: Path) -> None:
    """Every linear layer is adapted; the first loss is the base's own; PEFT alone loads what was saved and finds it all."""
    import torch
    import transformers
    from peft import PeftConfig, PeftModel

    base = make(kind)
    made = document(tmp_path, base, "one", "training.per_device_train_batch_size=6")
    job = training.prepare(made)
    counts = [line for line in training.adapter_lines(job) if "adapts" in line]
    assert f"  adapts  {LINEARS[kind]} modules" in counts[0]
    assert ("fused experts" in "\n".join(training.adapter_lines(job))) == (kind in EXPERTS)
    run = runs.create(made)
    training.train(job, run, progress=lambda *_: None)
    assert run.metrics()[0]["loss"] == pytest.approx(own_loss(base, job.rows.train), abs=2e-4)

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of weights that it has no place for
        plain = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        settings = PeftConfig.from_pretrained(str(run.adapter))
        settings.base_model_name_or_path = str(base)
        again = PeftModel.from_pretrained(plain, str(run.adapter), config=settings)
    assert torch.allclose(logits(again), logits(job.loaded.model), atol=1e-4)
    assert not torch.allclose(logits(again), logits(transformers.AutoModelForCausalLM.from_pretrained(base)), atol=1e-4)
    assert servability(made) == []


@pytest.mark.parametrize(
    "kind", ["gpt2", "glm4_moe", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("gpt_oss", "falcon_h1"))]
)
def test_a_kind_is_merged(kind: str, make: Make, tmp_path: Path, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    made = document(tmp_path, make(kind), "merged")
    run = runs.create(made)
    training.train(made, run, progress=lambda *_: None)
    assert merge(run).lost.kl < 1e-8


def test_a_mixtures_step_is_trls_own(make: Make, tmp_path: Path, home: Path) -> None:
    """The gradients of the whole loss, the routers' share included, on padded rows and on rows end to end."""
    import torch
    import transformers
    from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

    base = make("qwen3_moe")
    made = document(tmp_path, base, "ours", "training.padding_free=false", "training.performance=plain", lora=None)
    job = training.prepare(made)
    rows = [dict(row) for row in job.rows.train]
    found = {}
    for name, padding_free in (("ours", False), ("end_to_end", True)):
        one = document(tmp_path, base, name, f"training.padding_free={str(padding_free).lower()}", lora=None)
        prepared = training.prepare(one)
        from llmbench.training import methods
        from llmbench.training.kernels import fused_head
        from llmbench.training.loop.batches import Collator
        from llmbench.training.loop.record import Recorder, Stop

        run = runs.create(one)
        trainer = methods.of(prepared.recipe.method).trainer(prepared, run, Recorder(run, Stop()))
        batch = Collator(prepared.recipe, 1)(rows)
        with fused_head.scoring(prepared.loaded.model):
            loss = trainer.compute_loss(trainer.model.train(), batch)
        loss.backward()
        found[name] = (float(loss.detach()), trainer._metrics["train"]["aux_loss"][0], _gradients(trainer.model))
    theirs: Any = SFTTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=SFTConfig(
            output_dir=str(tmp_path / "trl"), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None, report_to=[],
            use_cpu=True, bf16=False, gradient_checkpointing=False,
        ),
        train_dataset=job.rows.train,
        data_collator=Collator(job.recipe, 1),
        processing_class=job.loaded.tokenizer,
    )  # fmt: skip
    loss = theirs.compute_loss(theirs.model.train(), Collator(job.recipe, 1)(rows))
    loss.backward()
    share = theirs.router_aux_loss_coef * theirs._metrics["train"]["aux_loss"][0]
    expected = _gradients(theirs.model)
    for mine, balance, gradients in found.values():
        assert mine == pytest.approx(float(loss.detach()) - share, abs=1e-5)
        assert balance == pytest.approx(theirs._metrics["train"]["aux_loss"][0], abs=1e-5)
        assert gradients.keys() == expected.keys()
        assert all(torch.allclose(gradients[name], one, atol=1e-5) for name, one in expected.items())


def _gradients(model: Any) -> dict[str, Any]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def test_fused_experts_are_adapted_when_they_are_named(make: Make, tmp_path: Path, home: Path) -> None:
    from llmbench.training.merging.merge import merge

    lora = {"r": 4, "target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}
    made = document(tmp_path, make("qwen3_moe"), "experts", lora=lora)
    [told] = servability(made)
    assert "adapts the fused experts" in told and "llmbench merge experts" in told
    job = training.prepare(made)
    [line] = training.adapter_lines(job)
    assert "down_proj x2" in line and "gate_up_proj x2" in line
    run = runs.create(made)
    training.train(job, run, progress=lambda *_: None)
    assert merge(run).lost.kl < 1e-8


def test_an_adapter_of_a_mixture_is_trained_further(make: Make, tmp_path: Path, home: Path) -> None:
    """What PEFT is told to read as parameters are modules again."""
    import torch

    from llmbench.training.loading.model import load_model

    base = make("glm4_moe")
    first = document(tmp_path, base, "first")
    job, run = training.prepare(first), runs.create(first)
    training.train(job, run, progress=lambda *_: None)
    saved = json.loads((run.adapter / "adapter_config.json").read_text())
    assert saved["target_parameters"] == ["down_proj.weight", "gate_proj.weight", "up_proj.weight"]
    more = load_model(document(tmp_path, base, "more", adapter_name_or_path="first", lora={})).model
    assert torch.allclose(logits(more), logits(job.loaded.model), atol=1e-5)
    assert {type(m).__name__ for m in more.modules() if "ParamWrapper" in type(m).__name__} == set()


def test_experts_that_are_named_as_modules_are_explained(make: Make, tmp_path: Path) -> None:
    from llmbench.training.loading.model import load_model

    with pytest.raises(RecipeError, match=r"no module .* named gate_proj; .* lora\.target_parameters=\[experts\.down_proj"):
        load_model(document(tmp_path, make("qwen3_moe"), "named", "lora.target_modules=[q_proj, gate_proj]"))


REFUSED: dict[str, tuple[str, dict[str, int], str]] = {
    "t5": ("T5Config", {"d_model": 32, "d_ff": 48, "num_layers": 2, "num_heads": 4, "d_kv": 8}, "is an encoder-decoder"),
    "bart": ("BartConfig", {}, "is an encoder-decoder"),
    "bert": ("BertConfig", {}, "is an encoder, which reads in both directions"),
    "qwen2_vl": ("Qwen2VLConfig", {}, "image-and-text model without a text-only class"),
    "clip": ("CLIPConfig", {}, "not a decoder that this version of transformers knows"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_decoder_is_refused_by_its_configuration(kind: str) -> None:
    import transformers

    made, given, says = REFUSED[kind]
    config = getattr(transformers, made)(**given)
    refused = architecture.refusal(json.loads(config.to_json_string(use_diff=False)))
    assert refused is not None and says in refused and "llmbench trains decoders" in refused


def test_a_class_that_reads_ahead_is_found_in_a_trial(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench.training.loading import trial
    from llmbench.training.loading.model import load_model

    loaded = load_model(document(tmp_path, make("llama"), "ahead"))
    inner = loaded.model.get_base_model()
    monkeypatch.setattr(inner, "forward", lambda **given: _mirrored(type(inner).forward(inner, **given)))
    with pytest.raises(RecipeError, match="later tokens changed the logits of earlier ones"):
        trial.tried(document(tmp_path, make("llama"), "ahead"), loaded)


def _mirrored(out: Any) -> Any:
    out.logits = out.logits + out.logits.flip(1)
    return out


@pytest.mark.parametrize(("kind", "wanted"), [("bloom", "eager"), ("gpt_oss", "eager"), ("mamba", "eager"), ("llama", "sdpa")])
def test_the_attention_is_one_that_the_model_has(make: Make, tmp_path: Path, kind: str, wanted: str) -> None:
    from llmbench.training.loading.model import load_model

    assert load_model(document(tmp_path, make(kind), "auto")).model.config._attn_implementation == wanted
    if wanted == "eager":
        says = "model.attn_implementation: .* has no sdpa; leave it out"
        with pytest.raises(LlmbenchError, match=says):
            load_model(document(tmp_path, make(kind), "sdpa", "model.attn_implementation=sdpa"))


def test_a_recipe_names_no_experts_beside_a_variant(write: Write) -> None:
    with pytest.raises(RecipeError, match=r"target_parameters: PEFT adapts parameters with plain LoRA only"):
        write("dora", lora={"use_dora": True, "target_parameters": ["experts.down_proj"]})
