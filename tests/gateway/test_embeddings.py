"""`/v1/embeddings`: which texts are taken, whose prefix they get, what they cost, and how vectors are written."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.conftest import Served as Endpoint
from tests.gateway.pipelines import FakePipeline, over
from tests.gateway.test_app import client

from llmbench import recipe
from llmbench.endpoint import HttpEndpoint
from llmbench.errors import LlmbenchError
from llmbench.gateway import Catalogue, Grounding, Served
from llmbench.gateway.cards import documents, pipelines
from llmbench.gateway.catalogue import refuse_clash
from llmbench.gateway.exchange import Exchange
from llmbench.gateway.keys import KeyStore
from llmbench.gateway.ledger import Ledger
from llmbench.gateway.quota import Limits
from llmbench.recipe import EmbedderSpec, ServeRecipe, Variant
from llmbench.retrieval.embedding import Embedder

ASK = {"model": "pages", "input": "One two"}


@pytest.fixture
def pipeline_() -> FakePipeline:
    return FakePipeline()


@pytest.mark.parametrize(
    ("fields", "count", "vector", "tokens"),
    [
        ({}, 1, [0, 1], 4),
        ({"input": ["One", "two three"]}, 2, [0, 1], 7),
        ({"model": "rag", "input_type": "query"}, 1, [1, 0], 5),
        ({"dimensions": 2, "user": "me", "encoding_format": "float"}, 1, [0, 1], 4),
    ],
)
async def test_each_text_gets_a_vector_and_its_tokens_are_counted(
    pipeline_: FakePipeline, fields: dict[str, Any], count: int, vector: list[int], tokens: int
) -> None:
    async with client(over(pipeline_)) as http:
        data = (await http.post("/v1/embeddings", json=ASK | fields)).json()
        counted = (await http.get("/metrics")).text
    assert data["object"] == "list" and data["model"] == fields.get("model", "pages")
    assert [(one["index"], one["object"], one["embedding"]) for one in data["data"]] == [
        (i, "embedding", vector) for i in range(count)
    ]
    assert data["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert f'llmbench_tokens_total{{key="",model="pages",type="input"}} {tokens}.0' in counted.splitlines()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", ASK),
        ("/v1/rerank", {"model": "rag", "query": "One", "documents": ["Two"]}),
        ("/v1/search", {"model": "pages", "query": "One"}),
        ("/v1/vector_stores/pages/search", {"query": "One"}),
    ],
)
async def test_a_pipeline_that_is_asked_for_itself_is_recorded_as_one_and_as_no_variant(
    pipeline_: FakePipeline, path: str, body: dict[str, Any]
) -> None:
    told: list[Exchange] = []
    async with client(over(pipeline_, sinks=[told.append])) as http:
        answer = await http.post(path, json=body)
        counted = (await http.get("/metrics")).text
    assert answer.status_code == 200 and "x-llmbench-variant" not in answer.headers
    assert (told[0].variant, told[0].pipeline) == ("", "pages")
    assert 'llmbench_requests_total{key="",model="pages",status="200"} 1.0' in counted.splitlines()


async def test_many_texts_leave_searches_their_turn_and_the_event_loop_alone(pipeline_: FakePipeline) -> None:
    async with client(over(pipeline_)) as http:
        data = (await http.post("/v1/embeddings", json=ASK | {"input": ["One"] * 70})).json()
    assert [one["index"] for one in data["data"]] == list(range(70))
    assert pipeline_.embedder.blocks == [32, 32, 6]
    assert all(name.startswith("ground-pages") for name in pipeline_.embedder.threads)


async def test_base64_holds_the_same_numbers(pipeline_: FakePipeline) -> None:
    async with client(over(pipeline_)) as http:
        data = (await http.post("/v1/embeddings", json=ASK | {"encoding_format": "base64"})).json()
    assert np.frombuffer(base64.b64decode(data["data"][0]["embedding"]), "<f4").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"input": [1, 2]}, "input", "check_embedding_ctx_length=False"),
        ({"input": [[1, 2]]}, "input", "token ids"),
        ({"input": []}, "input", "a text or a list of texts"),
        ({"input": None}, "input", "a text or a list of texts"),
        ({"input": ["One", " "]}, "input[1]", "not empty"),
        ({"input": ["One", "a b c d e f g"]}, "input[1]", "input[1] has 9 tokens, and pages reads 8"),
        ({"input": "a b c d e f", "input_type": "query"}, "input[0]", "has 9 tokens"),
        ({"input": ["x"] * 2049}, "input", "2,048"),
        ({"dimensions": 3}, "dimensions", "have 2"),
        ({"encoding_format": "int8"}, "encoding_format", "float or base64"),
        ({"input_type": "passage"}, "input_type", "query or document"),
        ({"truncate": "END"}, "truncate", "a text that is too long is refused"),
        ({"dimension": 2}, "dimension", "not accepted"),
        ({"model": "base"}, "model", "base has no RAG pipeline. Available: pages."),
        ({"model": None}, "model", "missing"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(
    pipeline_: FakePipeline, fields: dict[str, Any], param: str, said: str
) -> None:
    async with client(over(pipeline_)) as http:
        answer = await http.post("/v1/embeddings", json=ASK | fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param and said in answer.json()["error"]["message"]
    assert pipeline_.embedder.blocks == []


async def test_pipelines_are_listed_after_the_variants_and_do_not_chat(pipeline_: FakePipeline) -> None:
    app = over(pipeline_)
    async with client(app) as http:
        data = (await http.get("/v1/models")).json()["data"]
        refused = await http.post(
            "/v1/chat/completions", json={"model": "pages", "messages": [{"role": "user", "content": "x"}]}
        )
        missing = await http.post("/v1/embeddings", json=ASK | {"model": "gpt"})
        assert (await http.get("/v1/models/pages")).json() == data[2]
    assert [(one["id"], one["kind"]) for one in data] == [("base", "chat"), ("rag", "chat"), ("pages", "pipeline")]
    assert data[2]["dimensions"] == 2 and data[2]["max_model_len"] == 8 and data[2]["embedder"] == "words"
    assert refused.status_code == 400 and "Available: base, rag" in refused.json()["error"]["message"]
    assert missing.status_code == 404 and "Available: pages" in missing.json()["error"]["message"]
    transport = httpx.ASGITransport(app)
    async with HttpEndpoint("http://127.0.0.1:8000/v1", transport=transport) as endpoint:
        assert await endpoint.models() == ["base", "rag"]


async def test_a_key_spends_what_its_texts_have_and_sees_the_pipelines_that_it_may(
    pipeline_: FakePipeline, tmp_path: Path
) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    key, other = store.new("alice", limits=Limits(tokens_per_day=10)), store.new("bob", models=["base"])
    ledger = Ledger(store.path)
    try:
        async with client(over(pipeline_, ledger=ledger)) as http:
            http.headers["Authorization"] = f"Bearer {key}"
            answers = [await http.post("/v1/embeddings", json=ASK) for _ in range(3)]
            http.headers["Authorization"] = f"Bearer {other}"
            unseen = await http.post("/v1/embeddings", json=ASK)
            names = [one["id"] for one in (await http.get("/v1/models")).json()["data"]]
    finally:
        ledger.close()
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["x-ratelimit-remaining-tokens"] for answer in answers] == ["6", "2", "2"]
    assert len(pipeline_.embedder.blocks) == 2
    assert unseen.status_code == 404 and names == ["base"]
    store.close()


def test_a_variant_may_not_have_the_name_of_another_ones_pipeline(pipeline: Path, pipeline_: FakePipeline) -> None:
    document = ServeRecipe.model_validate({"variants": [{"name": "a", "rag": str(pipeline)}, {"name": "pages"}]})
    with pytest.raises(LlmbenchError, match="model pages has the name of a's RAG pipeline"):
        refuse_clash(pipelines(document, documents(document)))
    catalogue = Catalogue([Served(Variant(name="pages"), "base", {})], context=64)
    with pytest.raises(LlmbenchError, match="Rename the model"):
        catalogue.put(Served(Variant(name="rag"), "base", {}, Grounding("pages", lambda: pipeline_)))
    assert list(catalogue.now.known) == ["pages"]


async def test_a_variant_of_its_pipelines_name_writes_and_embeds(pipeline_: FakePipeline) -> None:
    catalogue = Catalogue([Served(Variant(name="pages"), "base", {}, Grounding("pages", lambda: pipeline_))], context=64)
    assert [card["kind"] for card in catalogue.now.cards.values()] == ["chat"]
    writes, embeds = catalogue.take("pages"), catalogue.take_pipeline("pages")
    assert writes is not None and writes is embeds and writes.requests.running == 2


@pytest.mark.parametrize("encoding", ["float", None])  # unasked it sends base64, and reads it
def test_openais_client_gets_the_embedders_own_vectors(endpoint: Endpoint, encoding: Any) -> None:
    import openai

    texts = ["The Alba kettle is red.", "Refunds take 14 days.", "x " * 200]
    client = openai.OpenAI(base_url=endpoint.base_url, api_key="none")
    asked = {} if encoding is None else {"encoding_format": encoding}
    found = client.embeddings.create(model="pages", input=texts, **asked)
    embedder = Embedder(EmbedderSpec(), queries=True)
    wanted = embedder.embed_documents(texts)
    assert np.allclose([one.embedding for one in found.data], wanted, atol=1e-6)
    assert found.usage.prompt_tokens == sum(len(embedder.starts(text)) + 2 for text in texts)
    with pytest.raises(openai.BadRequestError, match=r"input\[0\] has 302 tokens, and pages reads 256"):
        client.embeddings.create(model="pages", input="x " * 300)
    assert [one.id for one in client.models.list()] == [*endpoint.variants, "pages"]
    assert recipe.load(endpoint.pipeline, recipe.RagRecipe).name == "pages"
