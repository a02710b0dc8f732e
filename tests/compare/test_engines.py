"""`engine: auto` with real engines: the ONNX server, which starts in a second or two; vLLM beside it in the long tier."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tests import warm
from tests.conftest import Mark

from llmbench import compare, recipe
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import CompareRecipe

pytestmark = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra `onnx`")

Load = Callable[..., CompareRecipe]
VALUES = {"kettle": "300 grams", "lamp": "900 grams", "radio": "2 kilograms", "clock": "12 ounces"}


@pytest.fixture(scope="module")
def graphs(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bundled model as ONNX graphs, `float32` and `int8`."""
    folder = tmp_path_factory.mktemp("graphs")
    program = """
        import shutil, sys
        from pathlib import Path
        from llmbench.exporting import onnx_graph

        tiny, folder = Path(sys.argv[1]), Path(sys.argv[2])
        for name, bits in (("float32", 32), ("int8", 8)):
            into = folder / name
            into.mkdir()
            if bits == 32:
                onnx_graph.write(tiny, into / "model.onnx")
            else:
                for path in (folder / "float32").glob("model.onnx*"):
                    shutil.copyfile(path, into / path.name)
                onnx_graph.fewer_bits(into / "model.onnx", bits)
            for path in tiny.iterdir():
                if path.is_file() and path.suffix != ".safetensors":
                    shutil.copyfile(path, into / path.name)
    """
    done = warm.run("training", textwrap.dedent(program), str(tiny), str(folder), env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def load(tmp_path: Path, graphs: Path) -> Load:
    """A recipe over the graphs, two prompts each."""

    def make(*overrides: str, many: int = 1, section: str = "") -> CompareRecipe:
        rows = [
            {"id": f"{thing}{i}", "question": f"How much does the {thing} {i} weigh?", "value": value, "thing": thing}
            for i in range(many)
            for thing, value in VALUES.items()
        ]
        (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        given = section or (
            f"factors:\n  models: [{graphs / 'float32'}, {{name: small, model: {graphs / 'int8'}}}]\n"
            "  prompts: [none, {name: named, system: Answer., template: 'The {thing}. {question}'}]\n"
        )
        text = f"name: auto\nengine: auto\nquestions: {{path: questions.jsonl}}\nmetrics: [contains_value]\n{given}"
        (tmp_path / "compare.yaml").write_text(f"{text}max_tokens: 12\nlogprobs: true\n", encoding="utf-8")
        return recipe.load(tmp_path / "compare.yaml", CompareRecipe, overrides)

    return make


def engines(home: Path) -> int:
    """How many were started."""
    return len(list((home / "logs").glob("engine-*.log")))


def test_two_prompts_on_two_models_are_one_comparison(
    load: Load, home: Path, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mark.name, mark.value)
    told: list[compare.Tally] = []
    phases: list[str] = []
    result = compare.run(load(), progress=told.append, starting=lambda words, seconds: phases.append(words))
    assert result.variants == ("float32", "float32+named", "small", "small+named")
    assert (result.missing, len(result.rows), told[-1].done) == (0, 16, 16)
    assert engines(home) == 2
    assert {words.partition(":")[0] for words in phases} == {"Starting float32", "Starting int8"}
    about = {row.answer.variant: row.answer.manifest for row in result.rows}
    assert about["small"]["base"] == "int8"
    assert about["small"]["engine"]["name"] == "onnxruntime"
    assert about["small"]["model"] != about["float32"]["model"]
    assert "prompt" in about["small+named"] and "prompt" not in about["small"]
    assert all(row.answer.bits and row.answer.text for row in result.rows)
    assert len(result.experiment.of("contains_value")) == 3
    assert result.experiment.engines[0].startswith("onnxruntime ")
    assert "latencies were not measured at the same time" in result.experiment.notes[0]
    assert mark.left(5.0).keys() <= {os.getpid()}, "no engine is left"

    again = compare.run(load())
    assert engines(home) == 2, "all answers are there, so that no engine is started"
    assert again.rows == result.rows


def test_a_killed_comparison_leaves_no_engine_and_goes_on_where_it_was(
    load: Load, tmp_path: Path, home: Path, mark: Mark
) -> None:
    load(many=12)
    argv = [sys.executable, "-m", "llmbench", "compare", str(tmp_path / "compare.yaml"), "concurrency=1"]
    answers = home / "comparisons" / "auto" / "answers.jsonl"
    with subprocess.Popen(argv, env=mark.env, stderr=subprocess.DEVNULL) as process:
        end = time.monotonic() + 60
        while not (answers.exists() and answers.read_bytes().count(b"\n") >= 5) and time.monotonic() < end:
            time.sleep(0.05)
        assert any("engine.onnx" in line for line in mark.alive().values())
        process.send_signal(signal.SIGKILL)
    assert mark.left() == {}
    there = answers.read_bytes().count(b"\n")
    assert 5 <= there < 192
    done = subprocess.run(argv, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Asking: {there} of 192 ({there} reused)" in done.stderr
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 192


def test_a_model_that_is_not_there_starts_nothing(load: Load, home: Path, graphs: Path) -> None:
    (home / "exports" / "run-onnx-int8").mkdir(parents=True)
    section = f"variants: [{{name: a, model: {graphs / 'int8'}}}, {{name: b, model: run-onnx-int4}}]\n"
    with pytest.raises(RecipeError) as fault:
        compare.run(load(section=section))
    assert (
        "variant b: there is no model run-onnx-int4. Give a folder, a hub's name, or an export (available: run-onnx-int8)"
        in (str(fault.value))
    )
    assert engines(home) == 0


def test_an_adapter_of_an_onnx_model_is_refused_with_the_reason(load: Load, graphs: Path, home: Path) -> None:
    with pytest.raises(RecipeError, match=r"engine\.backend: onnx serves whole models"):
        compare.run(load(section=f"variants: [{{name: a, model: {graphs / 'int8'}, adapter: sft}}]\n"))
    assert engines(home) == 0


def test_asking_stops_by_itself_only_where_all_are_asked_together(load: Load) -> None:
    section = "preregistration: {metric: contains_value, margin: 0.1, stop: sequential, baseline: float32, candidate: small}\n"
    document = load()
    text = document.source.read_text(encoding="utf-8")
    document.source.write_text(text + section, encoding="utf-8")
    with pytest.raises(LlmbenchError, match="engines of 2 models are started one after another"):
        compare.run(recipe.load(document.source, CompareRecipe))


@pytest.mark.slow
def test_what_quantising_cost_is_one_paired_comparison_with_vllm(
    load: Load, graphs: Path, lora: Path, pipeline: Path, home: Path, mark: Mark, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbench import retrieval
    from llmbench.recipe import RagRecipe

    retrieval.build(recipe.load(pipeline, RagRecipe))
    monkeypatch.setenv(mark.name, mark.value)
    section = (
        "engine_options: {dtype: float32, cpu_kv_cache_gib: 0.25}\nvariants:\n"
        f"  - base\n  - {{name: adapter, adapter: {lora}}}\n  - {{name: rag, pipeline: {pipeline}}}\n"
        f"  - {{name: onnx, model: {graphs / 'float32'}}}\n  - {{name: int8, model: {graphs / 'int8'}}}\n"
    )
    result = compare.run(load(section=section))
    said: dict[str, dict[str, Any]] = {}
    for row in result.rows:
        said.setdefault(row.answer.variant, {})[row.question.id] = row.answer
    assert {name: len(of) for name, of in said.items()} == dict.fromkeys(("base", "adapter", "rag", "onnx", "int8"), 4)
    assert result.missing == 0
    texts = {name: [answer.text for answer in of.values()] for name, of in said.items()}
    assert texts["onnx"] == texts["base"], "float32 on both engines, greedy"
    assert texts["adapter"] != texts["base"]
    manifest = said["adapter"]["kettle0"].manifest
    assert manifest["engine"]["name"] == "vllm"
    assert manifest["server"].startswith("vllm-")
    assert manifest["adapter"]["id"]
    assert said["rag"]["kettle0"].sources
    assert engines(home) == 3
    assert mark.left(10.0).keys() <= {os.getpid()}

    found = {one.variant: one for one in compare.replay(load(section=section)).variants}
    assert {name: one.drifted + one.failed for name, one in found.items()} == dict.fromkeys(said, 0)
    assert (found["int8"].state, found["onnx"].state) == ("same bits", "same bits")
    compare.run(load(section=section.replace("  - base\n", "  - {name: base, prompt: {system: Answer.}}\n")))
    assert engines(home) == 7, "of the replay three, and one for the variant that is asked otherwise"
