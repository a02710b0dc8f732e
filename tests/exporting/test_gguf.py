"""GGUF: llama.cpp reads the same tokens and says the same, or the folder is kept apart."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llmbench import assets
from llmbench.errors import LlmbenchError

from .conftest import Make

pytestmark = pytest.mark.skipif(find_spec("gguf") is None or find_spec("ik_llama_cpp") is None, reason="needs the extra `gguf`")

WIDTHS: dict[str, Any] = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": 2, "bos_token_id": None, "pad_token_id": 0,
}  # fmt: skip
LONG_ROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "long_factor": [1.5] * 8, "short_factor": [1.2] * 8}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-linear": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
    "mistral": {"sliding_window": None},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 32},
    "gemma3_text": {"head_dim": 32, "num_hidden_layers": 7, "sliding_window": 16, "query_pre_attn_scalar": 32},
    "phi3": {"sliding_window": None, "original_max_position_embeddings": 512},
    "phi3-long": {
        "original_max_position_embeddings": 300,
        "rope_parameters": LONG_ROPE | {"original_max_position_embeddings": 300},
    },
}


@pytest.mark.parametrize("name", MODELS)
def test_each_architecture_says_in_llama_cpp_what_it_says_in_transformers(tmp_path: Path, name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from llmbench.exporting.llama import reading, writer
    from llmbench.exporting.material import probes_of
    from llmbench.training.merging import probes

    tokenizer = AutoTokenizer.from_pretrained(assets.model_folder(assets.TINY))
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split("-")[0], **{**WIDTHS, **MODELS[name]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    for key, parameter in model.named_parameters():  # unlike any default, so that a weight left out shows
        mean = 1.0 if "norm" in key and "gemma" not in name else 0.0
        torch.nn.init.normal_(parameter, mean=mean, std=0.2 if parameter.dim() == 1 else 0.08)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    assert writer.refusal(json.loads((tmp_path / "model" / "config.json").read_text())) is None
    prompts = [list(range(5, 60)), [1, 7, 9]]
    asked = probes_of(tokenizer, prompts, probes.greedy(model, prompts, torch.float32), {})
    path = tmp_path / "model.gguf"
    writer.write(tmp_path / "model", path, tokenizer, frozenset({2}), name=name, pre="smollm", kind="f16")
    heard, ends = reading.ask(path, asked)
    said = probes.logits(model, [list(ids) for ids in asked.sequences], torch.float32)
    far = probes.distance(probes.Answers(said, []), probes.Answers([torch.from_numpy(one) for one in heard.logits], []))
    assert far.kl < 1e-5 and far.logit < 0.05, far
    assert heard.tokens == [list(one.ids) for one in asked.texts] and 2 in ends


@pytest.mark.parametrize(("name", "precision"), [("lora", "q8_0"), ("tokens", "f16"), ("whole", "q4_k_m"), ("full", "f16")])
def test_a_gguf_file_is_proven_by_llama_cpp(made: Make, tmp_path: Path, name: str, precision: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "gguf", precision=precision, output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    found = {check.name: check for check in done.proof.checks}
    assert ("its own" in found["tied"].found) == (name == "whole")
    assert found["stops"].found.startswith("stops at [2]")
    assert done.proof.figures["lost"]["kl"] < {"f16": 1e-5, "q8_0": 1e-2, "q4_k_m": 0.1}[precision]
    lines = (done.folder / "Modelfile").read_text().splitlines()
    assert lines[0] == "FROM ./model.gguf" and lines[-1] == 'PARAMETER stop "<|im_end|>"'
    assert '{{ if eq .Role "user" }}<|im_start|>user' in (done.folder / "Modelfile").read_text()


@pytest.mark.parametrize("name", ["lora", "rslora"])
def test_a_lora_alone_is_proven_beside_the_base(made: Make, tmp_path: Path, name: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "gguf-adapter", output=tmp_path / "out")
    assert done.proof.holds and done.proof.figures["lost"]["kl"] < 1e-5, proof.lines(done.proof)
    assert "ADAPTER ./adapter.gguf" in (done.folder / "Modelfile").read_text().splitlines()


@pytest.mark.parametrize(("name", "said"), [("dora", "is a DoRA"), ("whole", "modules_to_save"), ("qlora", "few bits")])
def test_what_llama_cpp_s_lora_cannot_hold_is_refused_at_once(made: Make, tmp_path: Path, name: str, said: str) -> None:
    from llmbench.exporting import job

    with pytest.raises(LlmbenchError, match=said):
        job.export(made(name), "gguf-adapter", output=tmp_path / "at" / "out")
    assert not (tmp_path / "at").exists()


def test_a_tokenizer_that_llama_cpp_cannot_have_is_refused(tmp_path: Path) -> None:
    """By its pre-tokenizer, which is tried on texts: digits in pairs from the left is none that llama.cpp knows."""
    from transformers import AutoTokenizer

    from llmbench.exporting.llama import reading, writer
    from llmbench.exporting.material import probes_of

    folder = Path(assets.model_folder(assets.TINY))
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    texts = probes_of(tokenizer, [[1]], [[2]], {}).texts
    writer.write(folder, tmp_path / "v.gguf", tokenizer, frozenset({2}), name="x", pre="default", kind="f32", weights=False)
    assert reading.pre_tokenizer(tmp_path / "v.gguf", texts) in ("gpt-2", "smollm")  # which differ where digits were merged
    import dataclasses

    other = (*texts[:-1], dataclasses.replace(texts[-1], ids=(1, 2, 3)))
    with pytest.raises(LlmbenchError, match=r"no pre-tokenizer that cuts texts as .* Use --format merged"):
        reading.pre_tokenizer(tmp_path / "v.gguf", other)


def test_a_run_that_is_named_after_phi_3_is_not_taken_for_it(tmp_path: Path) -> None:
    from llmbench.exporting.llama import vocabulary

    tiny = Path(assets.model_folder(assets.TINY))
    assert vocabulary.model_name("Phi-3.5-like", tiny) == "Phi 3.5-like" and vocabulary.model_name("phi3", tiny) == "phi 3"
    assert vocabulary.model_name("mine", tiny) == "mine"
    own = [("</s>", True), ("<unk>", False), ("<s>", False), ("<|endoftext|>", False)]
    added = [{"content": content, "rstrip": rstrip} for content, rstrip in own]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}))
    assert vocabulary.model_name("mine", tmp_path) == "phi-3 mine" and vocabulary.model_name("phi3", tmp_path) == "phi3"


def test_a_damaged_file_is_a_reason_and_not_a_crash(tmp_path: Path) -> None:
    from llmbench.exporting.llama import reading
    from llmbench.exporting.values import Probes

    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(LlmbenchError, match=r"llama\.cpp could not read it"):
        reading.ask(tmp_path / "model.gguf", Probes(((1, 2),), (1,), 1, ()))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM is not among"),
        ({"architectures": ["LlamaForCausalLM"], "rope_parameters": {"rope_type": "yarn"}}, "scaled by yarn"),
        ({"architectures": ["MistralForCausalLM"], "sliding_window": 4096}, "a window of tokens"),
    ],
)
def test_architectures_that_are_not_written_are_named(values: dict[str, Any], said: str) -> None:
    from llmbench.exporting.llama import writer

    assert said in str(writer.refusal(values))


LLAMA_3: dict[str, Any] = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip


def test_llama_3_s_scaling_is_in_the_file_as_transformers_computes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three kinds of waves: kept, slowed in part, and slowed by the whole factor. What reads the file leaves it out."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from llmbench.exporting.llama import rotation, writer

    tokenizer = AutoTokenizer.from_pretrained(assets.model_folder(assets.TINY))
    config = AutoConfig.for_model("llama", **{**WIDTHS, "head_dim": 32, "rope_parameters": LLAMA_3})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "model")  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(tmp_path / "model")
    values = json.loads((tmp_path / "model" / "config.json").read_text())
    assert writer.refusal(values) is None
    path = tmp_path / "model.gguf"
    given: dict[str, Any] = {"name": "x", "pre": "smollm", "kind": "f16"}
    writer.write(tmp_path / "model", path, tokenizer, frozenset({2}), **given)
    [check] = rotation.compared(path, values)
    assert check.holds and "16 frequencies" in check.found
    assert rotation.compared(path, values | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}) == ()
    monkeypatch.setattr(writer, "_llama3", lambda rope, theta, width: torch.full((width // 2,), 8.0))
    writer.write(tmp_path / "model", path, tokenizer, frozenset({2}), **given)
    assert rotation.compared(path, values)[0].holds is False
    monkeypatch.setattr(writer, "_computed", lambda found: iter(()))
    writer.write(tmp_path / "model", path, tokenizer, frozenset({2}), **given)
    assert rotation.compared(path, values)[0].found == "Llama 3's scaling is missing in the file"


def pieces(folder: Path) -> Any:
    """A tokenizer as Llama 2 and Mistral have: SentencePiece's pieces joined by merges, with a byte for whatever is unknown."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, trainers
    from transformers import PreTrainedTokenizerFast

    text = (Path(__file__).parents[2] / "docs" / "guide" / "ground.md").read_text(encoding="utf-8")
    learned = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    spaced = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    learned.normalizer = spaced
    special = ["<unk>", "<s>", "</s>"]
    # words apart, or merges would go over spaces that SentencePiece's never do
    learned.train_from_iterator(text.split(), trainers.BpeTrainer(vocab_size=700, special_tokens=special))
    trained = json.loads(learned.to_str())["model"]
    plain = [token for token in trained["vocab"] if token not in special]
    every = [*special, *(f"<0x{byte:02X}>" for byte in range(256)), *plain]
    merges: Any = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in trained["merges"]]
    bpe = models.BPE(
        vocab={token: i for i, token in enumerate(every)}, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
    )
    whole = Tokenizer(bpe)
    whole.normalizer = spaced
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    whole.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    made: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=whole, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    made.save_pretrained(folder)
    return made


def test_pieces_of_sentencepiece_are_read_alike(tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmbench.exporting.llama import reading, vocabulary, writer
    from llmbench.exporting.material import probes_of

    tokenizer = pieces(tmp_path / "model")
    config = AutoConfig.for_model("llama", **{**WIDTHS, "vocab_size": len(tokenizer)})
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(tmp_path / "model")  # type: ignore[no-untyped-call]
    assert vocabulary.of(tokenizer, tmp_path / "model", 0).model == "llama"
    asked = probes_of(tokenizer, [[5, 6, 7]], [[8]], {})
    path = tmp_path / "model.gguf"
    writer.write(tmp_path / "model", path, tokenizer, frozenset({2}), name="x", pre="default", kind="f16")
    heard, ends = reading.ask(path, asked)
    differ = [
        (one.text, one.ids, found) for one, found in zip(asked.texts, heard.tokens, strict=True) if found != list(one.ids)
    ]
    assert not differ and ends == {2}


def test_pieces_with_likelihoods_are_refused(tmp_path: Path) -> None:
    """SentencePiece's other kind, as T5 and XLNet have it."""
    from llmbench.exporting.llama import vocabulary

    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}))
    assert "of the kind Unigram, and only BPE ones" in str(vocabulary.refusal(tmp_path))
