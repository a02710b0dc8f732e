"""`llmbench export --format onnx` and `engine.backend: onnx`: the graph, and its server, say what was trained."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from .conftest import Make

if TYPE_CHECKING:
    import openai

    from llmbench.exporting.job import Exported

pytestmark = pytest.mark.skipif(find_spec("onnxscript") is None, reason="needs the extra `onnx`")

ASKED = "What is the fee for parking?"


@pytest.fixture(scope="module")
def exported(made: Make, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    from llmbench.exporting import job

    return job.export(made("lora"), "onnx", output=tmp_path_factory.mktemp("onnx") / "lora")


@pytest.fixture(scope="module")
def served(exported: Exported) -> Iterator[str]:
    from llmbench import gateway, recipe
    from llmbench.recipe import ServeRecipe

    document = exported.folder.parent / "serve.yaml"
    document.write_text(
        f"model: {{model_name_or_path: {exported.folder}}}\nengine: {{backend: onnx}}\ngateway: {{port: 0}}\n"
        "variants: [{name: fees}, {name: polite, system: Be polite.}]\n"
    )
    with gateway.running(recipe.load(document, ServeRecipe)) as url:
        yield url


@pytest.fixture
def client(served: str) -> openai.OpenAI:
    import openai

    return openai.OpenAI(base_url=served, api_key="none", max_retries=0)


def ids_of(folder: Path, text: str = ASKED) -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    chat = tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True)
    return list(tokenizer(chat, add_special_tokens=False)["input_ids"])


def test_the_graph_is_proven(exported: Exported) -> None:
    from llmbench.exporting import proof

    assert exported.proof.holds, proof.lines(exported.proof)
    assert exported.proof.figures["lost"]["kl"] < 1e-8 and exported.proof.figures["lost"]["logit"] < 1e-3
    assert not list(exported.folder.glob("*.safetensors*"))


@pytest.mark.parametrize(
    ("name", "precision"), [("tokens", "float32"), ("full", "float32"), ("lora", "int8"), ("whole", "int4")]
)
def test_the_graph_of_another_kind_is_proven(made: Make, tmp_path: Path, name: str, precision: str) -> None:
    from llmbench.exporting import job, proof

    done = job.export(made(name), "onnx", precision=precision, output=tmp_path / "out")
    assert done.proof.holds, proof.lines(done.proof)
    assert (done.proof.figures["lost"]["kl"] < 1e-8) == (precision == "float32")


def test_a_graph_with_another_scale_is_not_proven(exported: Exported, made: Make, tmp_path: Path) -> None:
    """One weight matrix doubled in the file, which onnxruntime reads without a word."""
    import shutil

    import numpy as np
    import onnx
    from onnx import numpy_helper

    from llmbench.exporting import formats, judging
    from llmbench.exporting.material import Material
    from llmbench.exporting.source import find

    folder = Path(shutil.copytree(exported.folder, tmp_path / "bent"))
    graph = onnx.load(str(folder / "model.onnx"))
    weight = next(one for one in graph.graph.initializer if len(one.dims) == 2 and min(one.dims) > 100)
    weight.CopyFrom(numpy_helper.from_array(np.asarray(numpy_helper.to_array(weight)) * 2, weight.name))
    onnx.save(graph, str(folder / "model.onnx"))
    material = Material(find(made("lora"), None), tmp_path, lambda step: None)
    material.model("float32")
    made_by = formats.get(formats.named("onnx"))
    heard = made_by.read_back(material, folder, material.reference().probes, "float32")
    found = judging.judge(made_by, "float32", material, folder, heard)
    assert "logits" in {check.name for check in found.failed}


def test_a_window_of_some_layers_is_in_the_graph(tmp_path: Path) -> None:
    """Gemma 3's layers with a window of 4, and rows longer than that."""
    import numpy as np
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from llmbench.exporting import onnx_graph
    from llmbench.onnx_model import GRAPH, OnnxModel

    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, sliding_window=4, layer_types=["sliding_attention", "full_attention"], max_position_embeddings=64,
    )  # fmt: skip
    model: Any = Gemma3ForCausalLM(config)
    model.eval()
    model.save_pretrained(tmp_path)
    onnx_graph.write(tmp_path, tmp_path / GRAPH)
    read = OnnxModel(tmp_path)
    ids = [3, 9, 27, 17, 51, 25, 11, 33, 35, 41, 59, 49]
    with torch.no_grad():
        wanted = model(torch.tensor([ids])).logits[0].numpy()
    first, cache = read.read(ids[:7], read.start())
    assert np.abs(np.concatenate([first, read.read(ids[7:], cache)[0]]) - wanted).max() < 1e-4


def test_its_server_writes_what_the_graph_writes(exported: Exported, client: openai.OpenAI) -> None:
    from llmbench.onnx_model import OnnxModel

    model = OnnxModel(exported.folder)
    wanted = model.greedy(ids_of(exported.folder), 24)
    answer = client.chat.completions.create(
        model="fees", messages=[{"role": "user", "content": ASKED}], max_tokens=24, logprobs=True, top_logprobs=2
    )
    told = answer.choices[0].logprobs
    assert told is not None and told.content is not None and answer.usage is not None
    assert len(told.content) == len(wanted) == answer.usage.completion_tokens
    assert all(one.top_logprobs[0].token == one.token and one.logprob <= 0 for one in told.content)
    pieces = list(
        client.chat.completions.create(
            model="fees", messages=[{"role": "user", "content": ASKED}], max_tokens=24, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == answer.choices[0].message.content
    assert pieces[-1].usage == answer.usage


def test_draws_follow_the_seed_and_stops_end_an_answer(client: openai.OpenAI) -> None:
    def drawn(**more: Any) -> list[str]:
        fields: dict[str, Any] = {"temperature": 1.5, "max_tokens": 20, "n": 2, "seed": 7} | more
        found = client.chat.completions.create(model="fees", messages=[{"role": "user", "content": ASKED}], **fields)
        return [str(one.message.content) for one in found.choices]

    assert drawn() == drawn() != drawn(seed=8) and len(set(drawn())) == 2
    whole = drawn(temperature=0, n=1)[0]
    stop = whole.split()[1]
    assert drawn(temperature=0, n=1, stop=stop)[0] == whole[: whole.index(stop)]


def test_a_text_is_scored_as_the_graph_scores_it(exported: Exported, client: openai.OpenAI) -> None:
    import numpy as np
    from transformers import AutoTokenizer

    from llmbench.engine.onnx.sampler import log_softmax
    from llmbench.onnx_model import OnnxModel

    model, tokenizer = OnnxModel(exported.folder), AutoTokenizer.from_pretrained(str(exported.folder))
    text = "The fee is 3 crowns."
    ids = tokenizer(text)["input_ids"]
    rows = log_softmax(model.read(ids, model.start())[0].astype(np.float64))
    found = client.completions.create(model="fees", prompt=text, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert found.text == text and found.logprobs is not None and found.logprobs.token_logprobs is not None
    wanted = [rows[i, token] for i, token in enumerate(ids[1:])]
    assert found.logprobs.token_logprobs[0] is None and found.logprobs.token_logprobs[1:] == pytest.approx(wanted, abs=1e-6)


@pytest.fixture(scope="module")
def engine(exported: Exported) -> Iterator[Any]:
    """The server itself, without the gateway, which checks much before."""
    from starlette.testclient import TestClient
    from transformers import AutoTokenizer

    from llmbench.engine.onnx.api import OnnxServer
    from llmbench.onnx_model import OnnxModel

    model, tokenizer = OnnxModel(exported.folder, threads=1), AutoTokenizer.from_pretrained(str(exported.folder))
    server = OnnxServer(model, tokenizer, exported.folder, name="base", context=1024, threads=2)
    with TestClient(server.app(), raise_server_exceptions=False) as client:
        yield client


def events(text: str) -> list[dict[str, Any]]:
    """The pieces of a stream, which must end as OpenAI's do."""
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


CHAT = '"messages": [{"role": "user", "content": "x"}]'


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", '{"prompt": [1, 1024]}', "prompt"),
        ("completions", '{"prompt": [[1], [-1]]}', "prompt"),
        ("completions", '{"prompt": ""}', "prompt"),
        ("completions", '{"prompt": "\\ud800"}', None),
        ("completions", '{"prompt": "x", "logprobs": true}', "logprobs"),
        ("completions", '{"prompt": "x", "max_tokens": 99999999999}', "max_tokens"),
        ("chat/completions", f'{{{CHAT}, "logit_bias": {{"1024": 1}}}}', "logit_bias"),
        ("chat/completions", f'{{{CHAT}, "logit_bias": {{"-1": 1}}}}', "logit_bias"),
        ("chat/completions", f'{{{CHAT}, "logit_bias": {{"3": NaN}}}}', "logit_bias"),
        ("chat/completions", f'{{{CHAT}, "stream": true, "stream_options": [1]}}', "stream_options"),
        ("chat/completions", f'{{{CHAT}, "chat_template_kwargs": {{"chat_template": "x"}}}}', "chat_template_kwargs"),
        ("chat/completions", f'{{{CHAT}, "\\ud800": 1}}', "\\ud800"),
        ("chat/completions", '{"messages": [{"role": "user", "content": "\\udfff"}]}', None),
        ("chat/completions", "[]", None),
        ("chat/completions", "{", None),
    ],
)
def test_an_odd_request_is_a_400_and_the_server_lives(engine: Any, path: str, body: str, param: str | None) -> None:
    refused = engine.post(f"/v1/{path}", content=body.encode())
    assert refused.status_code == 400 and refused.json()["error"]["type"] == "BadRequestError"
    assert refused.json()["error"]["param"] == param
    assert engine.post("/v1/completions", json={"prompt": [1], "max_tokens": 1}).status_code == 200


def test_an_unknown_model_is_a_404_even_if_its_name_is_half_a_character(engine: Any) -> None:
    answer = engine.post("/v1/completions", content=b'{"prompt": "x", "model": "\\ud800"}')
    assert answer.status_code == 404 and answer.json()["error"]["type"] == "NotFoundError"


def test_a_stream_has_the_shape_of_vllm_s(engine: Any) -> None:
    chat = {"messages": [{"role": "user", "content": ASKED}], "max_tokens": 3, "temperature": 0}
    answer = engine.post("/v1/chat/completions", json=chat | {"stream": True, "stream_options": {"include_usage": True}})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    first, *middle, usage = events(answer.text)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {one["object"] for one in (first, *middle, usage)} == {"chat.completion.chunk"}
    assert len({(one["id"], one["created"], one["model"]) for one in (first, *middle, usage)}) == 1
    assert [one["choices"][0]["finish_reason"] for one in middle] == [None] * (len(middle) - 1) + ["length"]
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3


def test_a_streamed_echo_without_an_answer_is_told_and_ends(engine: Any) -> None:
    body = {"prompt": "The fee is 3.", "max_tokens": 0, "echo": True, "logprobs": 1}
    whole = engine.post("/v1/completions", json=body).json()["choices"][0]
    pieces = events(engine.post("/v1/completions", json=body | {"stream": True}).text)
    assert pieces[0]["choices"][0]["text"] == whole["text"] and pieces[0]["choices"][0]["logprobs"] == whole["logprobs"]
    assert [one["choices"][0]["finish_reason"] for one in pieces] == [None, "length"]


def test_sixty_four_answers_are_told_apart(engine: Any) -> None:
    body = {"prompt": "The fee", "max_tokens": 2, "n": 64, "temperature": 1.5, "seed": 1, "stop": []}
    found = engine.post("/v1/completions", json=body).json()
    assert [one["index"] for one in found["choices"]] == list(range(64))
    assert len({one["text"] for one in found["choices"]}) > 20
    assert found["usage"]["completion_tokens"] <= 128


@pytest.mark.parametrize("spoil", ["graph", "half the graph", "weights", "half the weights", "config", "config of a list"])
def test_a_damaged_folder_is_one_line(exported: Exported, tmp_path: Path, spoil: str) -> None:
    import shutil

    from llmbench.errors import LlmbenchError
    from llmbench.onnx_model import OnnxModel

    folder = Path(shutil.copytree(exported.folder, tmp_path / "spoiled"))
    names = {"graph": "model.onnx", "weights": "model.onnx.data", "config": "config.json"}
    path = folder / names[spoil.split()[-1].replace("list", "config")]
    if spoil == "config of a list":
        path.write_text("[]")
    elif spoil.startswith("half"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    with pytest.raises(LlmbenchError) as caught:
        OnnxModel(folder)
    assert str(path.parent) in str(caught.value) and "\n" not in str(caught.value) and "xport" in str(caught.value)


def test_what_it_cannot_do_is_refused_by_name(served: str) -> None:
    body = {"model": "fees", "messages": [{"role": "user", "content": "x"}]}
    for more, said in (
        ({"response_format": {"type": "json_object"}}, "response_format is not supported by the ONNX server"),
        ({"max_tokens": 1020}, "maximum context length is 1024 tokens"),
    ):
        answer = httpx.post(f"{served}/chat/completions", json=body | more)
        assert answer.status_code == 400 and said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("variants: [{name: a, adapter: lora}]", "engine.backend: onnx serves whole models"),
        ("variants: [{name: a}]\nengine: {backend: onnx, tensor_parallel_size: 2}", "tensor_parallel_size is vLLM's alone"),
        ("variants: [{name: a}]\nmodel: {dtype: bfloat16}", "model.dtype: engine.backend: onnx serves the folder with its own"),
    ],
)
def test_vllm_s_own_settings_are_refused(tmp_path: Path, more: str, said: str) -> None:
    from llmbench import recipe
    from llmbench.errors import RecipeError
    from llmbench.recipe import ServeRecipe

    path = tmp_path / "serve.yaml"
    path.write_text(more if "engine" in more else f"{more}\nengine: {{backend: onnx}}\n")
    with pytest.raises(RecipeError, match=said):
        recipe.load(path, ServeRecipe)


def test_a_folder_without_a_graph_ends_the_start_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmbench import assets, engine, recipe
    from llmbench.errors import EngineError
    from llmbench.recipe import ServeRecipe

    monkeypatch.setenv("LLMBENCH_HOME", str(tmp_path))
    path = tmp_path / "serve.yaml"
    bundled = assets.model_folder(assets.TINY)
    path.write_text(f"model: {{model_name_or_path: {bundled}}}\nengine: {{backend: onnx}}\nvariants: [{{name: a}}]\n")
    with engine.Engine(recipe.load(path, ServeRecipe), {}) as started, pytest.raises(EngineError, match=r"has no model\.onnx"):
        started.wait()
    assert json.loads((Path(bundled) / "config.json").read_text())
