"""The command line that vLLM is started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbench.engine import Adapter, Address, Capacity, command, places
from llmbench.engine.interpreter import Device
from llmbench.errors import EngineError
from llmbench.recipe import ServeRecipe

PYTHON, SOCKET = Path("/usr/bin/python3"), Path("/run/x/vllm.sock")


def argv(adapters: dict[str, Adapter] | None = None, device: Device = "cpu", **sections: Any) -> list[str]:
    recipe = ServeRecipe.model_validate(
        {"variants": [{"name": "base"}], "model": {"model_name_or_path": "org/model"}} | sections
    )
    return command(recipe, adapters or {}, SOCKET, python=PYTHON, device=device)


def after(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def adapter(id: str, rank: int) -> Adapter:
    return Adapter(id, id, Path(f"/store/{id}"), rank)


def test_vllm_listens_on_a_socket_and_on_no_port() -> None:
    words = argv()
    assert after(words, "--uds") == str(SOCKET)
    assert not {"--host", "--port"} & set(words)


def test_on_a_port_vllm_is_guarded_and_its_key_is_no_argument() -> None:
    recipe = ServeRecipe.model_validate({"variants": [{"name": "base"}], "model": {"model_name_or_path": "org/model"}})
    words = command(recipe, {}, Address("10.0.0.2", 8001, key="sesame"), python=PYTHON, device="cpu")
    assert (after(words, "--host"), after(words, "--port")) == ("10.0.0.2", "8001")
    assert after(words, "--middleware") == "key_guard.KeyGuard" and "--uds" not in words
    assert "sesame" not in " ".join(words)
    own = [words.index(flag) for flag in ("--host", "--port", "--middleware")]
    assert [w for i, w in enumerate(words) if i not in own and i - 1 not in own] == [
        w for w in argv() if w not in ("--uds", str(SOCKET))
    ]


def test_a_base_without_adapters_needs_no_lora() -> None:
    assert not any("lora" in word for word in argv())


@pytest.mark.parametrize(("rank", "allowed"), [(1, "1"), (2, "8"), (8, "8"), (9, "16"), (64, "64"), (257, "320"), (512, "512")])
def test_the_highest_rank_is_rounded_up_to_one_that_vllm_knows(rank: int, allowed: str) -> None:
    assert after(argv({"a": adapter("a", 1), "b": adapter("b", rank)}), "--max-lora-rank") == allowed


def test_a_rank_that_vllm_does_not_take_is_an_error() -> None:
    with pytest.raises(EngineError, match="rank 513"):
        argv({"a": adapter("a", 513)})


def test_an_adapter_with_two_names_is_registered_once() -> None:
    words = argv({"run": adapter("abc", 8), "folder": adapter("abc", 8), "other": adapter("xyz", 8)}, device="cuda")
    assert words[words.index("--lora-modules") + 1 :] == ["abc=/store/abc", "xyz=/store/xyz"]
    assert (after(words, "--max-loras"), after(words, "--max-cpu-loras")) == ("4", "6")  # 2 and 4 that may come later


def test_adapters_beyond_the_slots_stay_in_memory() -> None:
    words = argv({str(i): adapter(str(i), 8) for i in range(6)}, device="cuda", engine={"max_loras": 2})
    assert (after(words, "--max-loras"), after(words, "--max-cpu-loras")) == ("2", "10")


@pytest.mark.parametrize("count", [1, 3, 6])
def test_on_cpu_the_last_slot_stays_empty_because_the_base_is_given_what_is_in_it(count: int) -> None:
    words = argv({str(i): adapter(str(i), 8) for i in range(count)}, engine={"max_loras": 1, "max_adapters": count})
    assert (after(words, "--max-loras"), after(words, "--max-cpu-loras")) == (str(count + 1), str(count + 1))


def test_room_for_adapters_that_come_later_is_set_before_there_are_any() -> None:
    words = argv(engine={"max_adapters": 3, "max_lora_rank": 40})
    assert (after(words, "--max-loras"), after(words, "--max-lora-rank")) == ("4", "64")
    assert "--lora-modules" not in words
    assert after(argv(engine={"max_adapters": 1}), "--max-lora-rank") == "16"


def test_after_adapters_came_and_went_the_room_is_that_of_the_start() -> None:
    recipe = ServeRecipe.model_validate({"variants": [{"name": "base"}], "model": {"model_name_or_path": "org/model"}})
    words = command(recipe, {"a": adapter("a", 8)}, SOCKET, python=PYTHON, device="cpu", room=Capacity(2, 32))
    assert (after(words, "--max-loras"), after(words, "--max-lora-rank")) == ("3", "32")


def test_limits_below_the_documents_own_adapters_are_an_error() -> None:
    two = {"a": adapter("a", 8), "b": adapter("b", 32)}
    with pytest.raises(EngineError, match=r"engine\.max_adapters is 1, but the variants name 2 adapters"):
        argv(two, engine={"max_adapters": 1})
    with pytest.raises(EngineError, match=r"engine\.max_lora_rank is 16, but an adapter has rank 32"):
        argv(two, engine={"max_lora_rank": 16})


def test_remote_code_runs_only_when_the_recipe_allows_it() -> None:
    assert "--trust-remote-code" not in argv()
    model = {"model_name_or_path": "org/model", "trust_remote_code": True, "revision": "abc123"}
    words = argv(model=model)
    assert "--trust-remote-code" in words
    assert after(words, "--revision") == "abc123"


def test_the_engines_dtype_wins_over_the_models() -> None:
    model = {"model_name_or_path": "org/model", "dtype": "bfloat16"}
    assert after(argv(model=model), "--dtype") == "bfloat16"
    assert after(argv(model=model, engine={"dtype": "float32"}), "--dtype") == "float32"


def test_memory_is_set_the_way_the_device_takes_it() -> None:
    engine = {"cpu_kv_cache_gib": 0.5, "gpu_memory_utilization": 0.7}
    cpu, cuda = argv(engine=engine), argv(engine=engine, device="cuda")
    assert after(cpu, "--kv-cache-memory-bytes") == str(2**29)
    assert "--gpu-memory-utilization" not in cpu
    assert after(cuda, "--gpu-memory-utilization") == "0.7"
    assert not {"--kv-cache-memory-bytes", "--enforce-eager"} & set(cuda)


def test_extra_arguments_come_last_so_that_they_win() -> None:
    assert argv(engine={"extra_args": ["--max-num-seqs", "4"]})[-2:] == ["--max-num-seqs", "4"]


def test_the_gateway_knows_how_many_answers_vllm_computes_at_once() -> None:
    def recipe(**engine: Any) -> ServeRecipe:
        return ServeRecipe.model_validate({"variants": [{"name": "base"}], "engine": engine})

    assert after(argv(engine={"max_num_seqs": 32}), "--max-num-seqs") == "32"
    assert "--max-num-seqs" not in argv()
    assert places(recipe(max_num_seqs=32), "cuda") == 32
    assert places(recipe(max_num_seqs=32, extra_args=["--max-num-seqs", "4"]), "cpu") == 4
    assert places(recipe(extra_args=["--max_num_seqs=8", "--swap-space", "4"]), "cpu") == 8
    assert places(recipe(max_num_seqs=32, data_parallel_size=2), "cuda") == 64
    assert (places(recipe(), "cpu"), places(recipe(), "cuda")) == (128, 1024)


def test_a_model_is_spread_over_gpus_as_the_document_says() -> None:
    spread = {"tensor_parallel_size": 4, "pipeline_parallel_size": 2, "data_parallel_size": 2}
    words = argv(engine=spread, device="cuda")
    assert [after(words, f"--{name.replace('_', '-')}") for name in spread] == ["4", "2", "2"]
    assert not any("parallel" in word for word in argv(device="cuda"))


def test_the_models_own_sampling_defaults_stay_out() -> None:
    assert after(argv(), "--generation-config") == "vllm"


def test_json_is_written_without_free_white_space_unless_the_owner_chooses() -> None:
    assert json.loads(after(argv(), "--structured-outputs-config")) == {"backend": "xgrammar", "disable_any_whitespace": True}
    for own in (["--structured-outputs-config", "{}"], ["--structured-outputs-config.backend", "guidance"]):
        words = argv(engine={"extra_args": own})
        assert [word for word in words if word.startswith("--structured")] == own[:1]
