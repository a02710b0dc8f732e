"""A base model that stops at the end of text, taught a chat whose turns end with another token: what is saved stops there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llmbench import runs, training
from llmbench.engine import admit

from .conftest import LORA, Write

END_OF_TEXT, END_OF_TURN = 0, 2


@pytest.fixture(scope="module")
def base(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model as base models are published."""
    made = tmp_path_factory.mktemp("stops") / "base"
    shutil.copytree(tiny, made)
    settings = json.loads((made / "tokenizer_config.json").read_text(encoding="utf-8"))
    (made / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}), encoding="utf-8")
    for name in ("config.json", "generation_config.json"):
        values = json.loads((made / name).read_text(encoding="utf-8"))
        (made / name).write_text(json.dumps(values | {"eos_token_id": END_OF_TEXT}), encoding="utf-8")
    return made


def stops(folder: Path) -> list[Any]:
    return [
        json.loads((folder / name).read_text(encoding="utf-8"))["eos_token_id"]
        for name in ("generation_config.json", "config.json")
    ]


def test_a_model_of_which_all_is_trained_is_saved_to_stop_at_its_turns_end(base: Path, write: Write) -> None:
    document = write("full", "training.max_steps=1", model={"model_name_or_path": str(base)}, lora=None)
    run = runs.create(document)
    training.train(document, run)
    assert stops(run.model) == [[END_OF_TEXT, END_OF_TURN]] * 2
    assert json.loads((run.model / "llmbench.json").read_text())["stop_token_ids"] == [END_OF_TURN]


def test_an_adapter_carries_its_turns_end_to_the_engine_and_into_a_merge(base: Path, write: Write, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    from llmbench.training.merging.merge import merge

    document = write("part", "training.max_steps=4", model={"model_name_or_path": str(base)}, lora=LORA)
    run = runs.create(document)
    training.train(document, run)
    assert admit(str(run.adapter), str(base), base).stops == (END_OF_TURN,)
    assert stops(base) == [END_OF_TEXT] * 2
    weights = run.adapter / "adapter_model.safetensors"
    save_file({name: tensor * 25 for name, tensor in load_file(weights).items()}, weights)  # four steps are little to prove
    assert stops(merge(run, output=tmp_path / "merged").folder) == [[END_OF_TEXT, END_OF_TURN]] * 2


def test_a_model_that_stops_there_already_is_left_as_it_is(tiny: Path) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from llmbench.training.loading.model import stop_at

    model: Any = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny))  # type: ignore[no-untyped-call]
    model.generation_config.eos_token_id = END_OF_TURN
    stop_at(model, (END_OF_TURN,))
    assert model.generation_config.eos_token_id == END_OF_TURN
    stop_at(model, (7,))
    assert model.generation_config.eos_token_id == [END_OF_TURN, 7]
