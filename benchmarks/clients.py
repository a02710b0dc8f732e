"""Asks a served endpoint with the clients that people use, and prints a table of what each could do.

    llmbench serve recipes/serve.yaml
    uv venv /tmp/clients && uv pip install -p /tmp/clients/bin/python openai langchain-openai litellm \
        'pydantic-ai-slim[openai]' instructor llama-index-llms-openai-like llama-index-embeddings-openai-like cohere \
        'lm_eval[api]' transformers guidellm
    /tmp/clients/bin/python benchmarks/clients.py --model base --pipeline handbook --tokenizer src/llmbench/tiny/model

Clients that are not installed are left out. It needs nothing of llmbench.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

_TEXT = "What colour is the kettle?"
_MESSAGES = [{"role": "user", "content": _TEXT}]
_DOCUMENTS = ["The lamp is made of brass.", "The kettle is red."]
_KEY = "none"
_TASK: dict[str, Any] = {
    "dataset_path": "json", "test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}",
}  # fmt: skip
_TASKS: dict[str, dict[str, Any]] = {
    "small_choice": {"output_type": "multiple_choice", "doc_to_choice": ["red", "brass"], "metric_list": [{"metric": "acc"}]},
    "small_answer": {
        "output_type": "generate_until", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    },
}  # fmt: skip
"""Tasks of lm-eval, of a single question each."""


class Clients:
    """One method for each client and path; each raises where it does not work."""

    def __init__(self, url: str, model: str, pipeline: str, tokenizer: Path | None = None) -> None:
        self.url, self.model, self.pipeline, self.tokenizer = url, model, pipeline, tokenizer
        self._given: dict[str, Any] = {"base_url": url, "api_key": _KEY}

    def openai(self) -> None:
        """Chats, responses, vectors and passages by OpenAI's own client."""
        client = import_module("openai").OpenAI(**self._given)
        client.chat.completions.create(model=self.model, messages=_MESSAGES, max_tokens=8)
        with client.responses.stream(model=self.model, input=_TEXT, max_output_tokens=8) as events:
            list(events)
        client.embeddings.create(model=self.pipeline, input=_DOCUMENTS)
        list(client.vector_stores.search(self.pipeline, query=_TEXT))

    def langchain(self) -> None:
        """Chats whole and streamed, responses, vectors."""
        package = import_module("langchain_openai")
        for responses in (False, True):
            model = package.ChatOpenAI(model=self.model, max_tokens=8, use_responses_api=responses, **self._given)
            model.invoke(_TEXT)
            list(model.stream(_TEXT))
        package.OpenAIEmbeddings(model=self.pipeline, check_embedding_ctx_length=False, **self._given).embed_documents(
            _DOCUMENTS
        )

    def litellm(self) -> None:
        """Chats, responses, vectors, reranking in Jina's form."""
        package, given = import_module("litellm"), {"api_base": self.url, "api_key": _KEY}
        list(package.completion(model=f"openai/{self.model}", messages=_MESSAGES, max_tokens=8, stream=True, **given))
        package.responses(model=f"openai/{self.model}", input=_TEXT, max_output_tokens=8, **given)
        package.embedding(model=f"openai/{self.pipeline}", input=_DOCUMENTS, **given)

    def pydantic_ai(self) -> None:
        """Chats and responses."""
        models = import_module("pydantic_ai.models.openai")
        provider = import_module("pydantic_ai.providers.openai").OpenAIProvider(**self._given)
        for kind in (models.OpenAIChatModel, models.OpenAIResponsesModel):
            import_module("pydantic_ai").Agent(kind(self.model, provider=provider), model_settings={"max_tokens": 8}).run_sync(
                _TEXT
            )

    def instructor(self) -> None:
        """An answer in JSON, held to a schema."""
        package, pydantic = import_module("instructor"), import_module("pydantic")
        answer = pydantic.create_model("Answer", red=(bool, ...))
        client = package.from_openai(import_module("openai").OpenAI(**self._given), mode=package.Mode.JSON_SCHEMA)
        client.chat.completions.create(
            model=self.model, response_model=answer, messages=_MESSAGES, max_tokens=32, max_retries=0
        )

    def llama_index(self) -> None:
        """Chats streamed, vectors."""
        given = {"api_base": self.url, "api_key": _KEY}
        model = import_module("llama_index.llms.openai_like").OpenAILike(
            model=self.model, is_chat_model=True, max_tokens=8, **given
        )
        list(model.stream_complete(_TEXT))
        import_module("llama_index.embeddings.openai_like").OpenAILikeEmbedding(
            model_name=self.pipeline, **given
        ).get_text_embedding(_TEXT)

    def cohere(self) -> None:
        """Reranking, where the pipeline has a reranker."""
        client = import_module("cohere").ClientV2(api_key=_KEY, base_url=self.url.removesuffix("/v1"))
        client.rerank(model=self.pipeline, query=_TEXT, documents=_DOCUMENTS)

    def lm_eval(self) -> None:
        """Log-likelihoods and answers by `local-completions`, answers by `local-chat-completions`."""
        import_module("lm_eval")
        read = f",tokenizer_backend=huggingface,tokenizer={self.tokenizer},tokenized_requests=False"
        with tempfile.TemporaryDirectory() as folder:
            rows = Path(folder) / "rows.jsonl"
            rows.write_text(json.dumps({"question": "The kettle is", "answer": "red"}) + "\n", encoding="utf-8")
            for name, task in _TASKS.items():
                own = {"task": name, "dataset_kwargs": {"data_files": {"test": str(rows)}}}
                Path(folder, f"{name}.yaml").write_text(json.dumps(_TASK | task | own), encoding="utf-8")  # JSON is YAML
            for kind, path, more, tasks in (
                ("local-completions", "completions", read, ",".join(_TASKS)),
                ("local-chat-completions", "chat/completions", "", "small_answer"),
            ):
                given = f"model={self.model},base_url={self.url}/{path}{more}"
                chat = ["--apply_chat_template"] if kind == "local-chat-completions" else []
                _run(
                    "lm_eval", "run", "--model", kind, "--model_args", given, "--tasks", tasks, "--include_path", folder, *chat
                )

    def guidellm(self) -> None:
        """Five questions of synthetic text, one after another."""
        import_module("guidellm")
        _run(
            "guidellm", "run", "--backend", f"kind=openai_http,target={self.url.removesuffix('/v1')},model={self.model}",
            "--profile", "kind=synchronous", "--constraint", "kind=max_requests,count=5",
            "--tokenizer", f"kind=hf_auto,model={self.tokenizer}",
            "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=8", "--disable-console",
        )  # fmt: skip


def _run(program: str, *arguments: str) -> None:
    """Runs a program that stands beside this interpreter; raises with its last line where it fails."""
    environment = os.environ | {"OPENAI_API_KEY": _KEY, "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    with tempfile.TemporaryDirectory() as folder:  # where they leave their reports
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{program}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")


def tried(work: Callable[[], None]) -> str:
    """`works`, `-` where the client is not installed, or what went wrong."""
    try:
        work()
    except ModuleNotFoundError:
        return "-"
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:150]
    return "works"


def version(package: str) -> str:
    """Of an installed package; empty where it is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Asks a served endpoint with the clients that are installed.")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="base")
    parser.add_argument("--pipeline", default="handbook")
    parser.add_argument("--tokenizer", type=lambda given: Path(given).absolute(), help="the folder of the model's tokenizer")
    given = parser.parse_args()
    clients = Clients(given.url, given.model, given.pipeline, given.tokenizer)
    print("| client | version | result |\n|---|---|---|")
    for package, work in {
        "openai": clients.openai,
        "langchain-openai": clients.langchain,
        "litellm": clients.litellm,
        "pydantic-ai-slim": clients.pydantic_ai,
        "instructor": clients.instructor,
        "llama-index-llms-openai-like": clients.llama_index,
        "cohere": clients.cohere,
        "lm_eval": clients.lm_eval,
        "guidellm": clients.guidellm,
    }.items():
        if (found := tried(work)) != "-":
            print(f"| {package} | {version(package)} | {found} |", flush=True)


if __name__ == "__main__":
    main()
