"""Small sentence-transformers models with random weights, written by the tests in the formats that are met."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WORDS = [
    *"abcdefghijklmnopqrstuvwxyz0123456789.,:?",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"),
    "the",
    "##ing",
]

MakeModel = Callable[..., Path]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The workspace, whose cache keeps graphs, hashes and what was checked."""
    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory) -> MakeModel:
    """Writes a model: architecture, pooling, prompts and window by keyword."""

    def make(
        kind: str = "bert",
        pooling: str = "mean",
        prompts: dict[str, str] | None = None,
        window: int | None = 48,
        dtype: str = "float32",
        old_names: bool = False,
        include_prompt: bool = True,
        cased: bool = False,
        **config: Any,
    ) -> Path:
        import torch
        from transformers import AutoConfig, AutoModel, BertTokenizer

        folder = tmp_path_factory.mktemp(kind)
        torch.manual_seed(7)
        sizes: dict[str, Any] = (
            {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
            if kind == "distilbert"
            else {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        )
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
        made = AutoConfig.for_model(
            kind,
            **sizes,
            vocab_size=len(vocabulary),
            max_position_embeddings=80,
            initializer_range=0.4,
            pad_token_id=0,
            **config,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: Any = AutoModel.from_config(made)  # type: ignore[no-untyped-call]
            model = model.to(getattr(torch, dtype))
        for parameter in model.parameters():  # biases of 0 and norms of 1 would hide a mistake
            if parameter.ndim == 1:
                parameter.data += torch.randn_like(parameter) * 0.1
        model.save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
        BertTokenizer(str(folder / "vocab.txt"), model_max_length=64, do_lower_case=not cased).save_pretrained(folder)
        types = ("Transformer", "1_Pooling/Pooling", "2_Normalize/Normalize")
        modules = [
            {
                "idx": i,
                "name": str(i),
                "path": place.rpartition("/")[0],
                "type": f"sentence_transformers.models.{place.split('/')[-1]}",
            }
            for i, place in enumerate(types)
        ]
        write(folder / "modules.json", modules)
        (folder / "2_Normalize").mkdir()
        names = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
        method: dict[str, Any] = (
            {"word_embedding_dimension": 32} | {f"pooling_mode_{name}": key == pooling for key, name in names.items()}
            if old_names
            else {"embedding_dimension": 32, "pooling_mode": pooling}
        )
        write(folder / "1_Pooling" / "config.json", method | {"include_prompt": include_prompt})
        write(folder / "sentence_bert_config.json", {"max_seq_length": window} if window else {})
        write(folder / "config_sentence_transformers.json", {"prompts": prompts or {}, "default_prompt_name": None})
        return folder

    return make


def write(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
