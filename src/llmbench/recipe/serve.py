"""The serving document: one base model, and the variants of it that the gateway offers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from llmbench.recipe.fields import Document, ExistingPath, Name, Reference, Section, Seed, placed
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.observing import AccessLog, CaptureSpec, Traces
from llmbench.recipe.servability import MAX_RANK
from llmbench.recipe.traffic import RouteSpec
from llmbench.recipe.vllm_options import is_option

__all__ = ["VLLM_ALONE", "EngineSpec", "GatewaySpec", "Sampling", "ServeRecipe", "Variant"]


_CODE = "it loads code, which a recipe may not do"
_REFUSED_ARGS = {
    "--trust-remote-code": "set model.trust_remote_code and model.revision, so that training and serving agree",
    "--middleware": _CODE,
    "--worker-cls": _CODE,
    "--worker-extension-cls": _CODE,
    "--scheduler-cls": _CODE,
    "--logits-processors": _CODE,
    "--tool-parser-plugin": _CODE,
    "--reasoning-parser-plugin": _CODE,
    "--io-processor-plugin": _CODE,
    "--model-loader-extra-config": _CODE,
    "--kv-transfer-config": _CODE,
    "--config": "it reads more arguments from a file; write them here",
    "--hf-overrides": _CODE,
    "--load-format": "weights are read as safetensors only",
    "--enable-prompt-embeds": "it loads tensors sent by clients",
    "--allowed-local-media-path": "it gives clients access to this machine's files",
    "--host": "vLLM listens on a private socket; set gateway.host",
    "--port": "vLLM listens on a private socket; set gateway.port",
    "--uds": "vLLM listens on a private socket",
}
"""Options of vLLM's server that a serving document may not pass on, each with the reason."""


def _redis(value: Any) -> Any:
    """The URL of a Redis. An error does not quote it, since it may hold a password."""
    if value is None:
        return value
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        whole = bool(parts.path if parts.scheme == "unix" else parts.hostname and parts.port != 0)
    except ValueError:
        whole = False
    if not whole or parts.scheme not in ("redis", "rediss", "unix"):
        raise ValueError(
            "give redis://HOST:PORT/DB, rediss://... (TLS) or unix://PATH; USER:PASSWORD@ stands before HOST, and what is no "
            "letter or digit in a password as %XX"
        )
    return value


def _engine_url(value: Any) -> Any:
    """Where an engine answers, as `http://HOST:PORT`. An error does not quote it, since it may hold a password."""
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        host, port, given = parts.hostname, parts.port, parts.username is not None
    except ValueError:
        host, port, given = None, None, False
    if given:
        raise ValueError("an engine's key stands in engine.api_key, not in its URL")
    if parts.scheme not in _PORTS or not host or port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("give http://HOST:PORT, or https://HOST:PORT, with nothing behind the port")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port or _PORTS[parts.scheme]}"


def _engine_key(value: Any) -> Any:
    """The engines' key. An error does not quote it."""
    if value is not None and not (
        isinstance(value, str) and value.isascii() and value.isprintable() and value.strip() == value
    ):
        raise ValueError(
            "a key is text of printable ASCII characters without spaces around it, in quotes where it looks otherwise"
        )
    if value == "":
        raise ValueError("a key has at least one character; leave it out where the engines ask for none")
    return value


_PORTS = {"http": 80, "https": 443}
VLLM_ALONE = (
    "python", "dtype", "max_loras", "max_adapters", "max_lora_rank", "tensor_parallel_size", "pipeline_parallel_size",
    "data_parallel_size", "gpu_memory_utilization", "cpu_kv_cache_gib", "tool_parser", "reasoning_parser", "extra_args",
)  # fmt: skip
"""Fields of the engine that mean nothing to the ONNX server."""
MAX_STOPS = 16
"""Texts that may end an answer; vLLM's own limit is 4, and it says "Input should be a valid string" of a longer list."""


class Sampling(Section):
    """Defaults for requests that do not set these themselves."""

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_tokens: Annotated[int, Field(gt=0)] = 256
    seed: Seed | None = None
    stop: Annotated[list[Annotated[str, Field(min_length=1)]], Field(max_length=MAX_STOPS)] = []


class Variant(Section):
    """A name for (model or adapter, system prompt, RAG pipeline, sampling)."""

    name: Name
    """What clients ask for as `model`."""
    adapter: Reference | None = None
    """A run's name, or an adapter's folder; without it the base model answers."""
    rag: ExistingPath | None = None
    """A RAG pipeline (YAML) whose passages are put before each question."""
    system: str | None = None
    sampling: Sampling = Sampling()
    description: str = ""


class EngineSpec(Section):
    """The vLLM process, or several that run elsewhere (`urls`)."""

    backend: Literal["vllm", "onnx"] = "vllm"
    """`onnx` serves a folder of `llmbench export --format onnx` on the CPU with onnxruntime in place of vLLM: a start of
    seconds, but no adapters, tools or JSON schemas, and no batches."""
    urls: list[Annotated[str, BeforeValidator(_engine_url)]] = []
    """Engines that run already, as `http://HOST:PORT`. The gateway starts none then, and spreads the requests over these.
    `llmbench serve DOCUMENT --engine-only` starts one from the same document."""
    api_key: Annotated[str | None, BeforeValidator(_engine_key), Field(repr=False)] = None
    """What engines on a port ask for, and what `--engine-only` makes its engine ask for."""
    python: Path | None = None
    """The interpreter that has vLLM, when it is not this one."""
    max_model_len: Annotated[int, Field(gt=0)] | None = None
    """Context length; without it the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    max_loras: Annotated[int, Field(gt=0)] = 4
    """Adapters of one batch, on a GPU; on CPU all of them fit."""
    max_adapters: Annotated[int, Field(ge=0)] | None = None
    """Adapters that fit at once. Without it those of the document and four more, and none where the document names none.

    vLLM fixes the number when it starts and reserves memory for each of them, and without any it runs the base faster."""
    max_lora_rank: Annotated[int, Field(gt=0, le=MAX_RANK)] | None = None
    """The highest rank of an adapter that may be added while serving. Without it the highest in the document, or 16.

    vLLM fixes it when it starts, and every adapter takes the memory of one of this rank."""
    tensor_parallel_size: Annotated[int, Field(gt=0)] = 1
    """GPUs that share each layer. It divides the model's attention heads."""
    pipeline_parallel_size: Annotated[int, Field(gt=0)] = 1
    """Groups of GPUs that share the layers."""
    data_parallel_size: Annotated[int, Field(gt=0)] = 1
    """Copies of the model that share the requests. The number of GPUs is the product of all three."""
    max_num_seqs: Annotated[int, Field(gt=0)] | None = None
    """Answers computed at once; those of others wait, and the keys take turns. Without it vLLM's own number: 128 on a CPU, 256
    to 1,024 on a GPU. On a GPU where several keys share, set it: only beyond it keys take turns."""
    restarts: Annotated[int, Field(ge=0)] = 3
    """Times an hour that vLLM is started again after it died. The next time, the server ends."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    cpu_kv_cache_gib: Annotated[float, Field(gt=0)] = 1.0
    start_timeout: Annotated[float, Field(gt=0)] = 600.0
    """Seconds until a start that is not ready counts as failed."""
    tool_parser: Annotated[str, Field(pattern=r"^[\w-]+$")] = "auto"
    """vLLM's parser that finds tool calls in answers: a name of vLLM's list, `none`, or `auto`, which tells it from the chat
    template. Without one, requests with `tools` are refused."""
    reasoning_parser: Annotated[str, Field(pattern=r"^[\w-]+$")] = "none"
    """vLLM's parser that takes what the model thinks out of `content` into `reasoning`: a name, `auto`, or `none`.

    Not `auto` by itself: some parsers count an answer without tags, such as that of an adapter that learned to answer at
    once, as thoughts, which leaves no answer."""
    extra_args: list[str] = []
    """More arguments for vLLM's API server, as it takes them, but for those that load code or open another door."""

    @model_validator(mode="after")
    def _onnx_takes_none_of_vllm_s_options(self) -> Self:
        given = [name for name in VLLM_ALONE if name in self.model_fields_set and getattr(self, name) is not None]
        if self.backend == "onnx" and given:
            raise ValueError(f"{given[0]} is vLLM's alone. Leave it out with backend: onnx")
        return self

    @model_validator(mode="after")
    def _urls_differ(self) -> Self:
        if twice := next((url for url in self.urls if self.urls.count(url) > 1), None):
            raise ValueError(f"urls: {twice} is listed twice")
        return self

    @model_validator(mode="after")
    def _extra_args_load_no_code(self) -> Self:
        for argument in self.extra_args:
            refused = next((option for option in _REFUSED_ARGS if is_option(argument, option)), None)
            if refused is not None:
                raise ValueError(f"extra_args: {argument} is not allowed: {_REFUSED_ARGS[refused]}")
        return self


class GatewaySpec(Section):
    """The OpenAI-compatible endpoint in front of the engine."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, lt=65536)] = 8000
    """0 takes a free one."""
    api_key: str | None = None
    """When set, clients must send it: one key without limits. Listening on anything but this machine needs it, or `keys`."""
    keys: bool | Annotated[Path, BeforeValidator(placed)] = False
    """Named keys with limits and budgets, which `llmbench keys` makes: true takes those of the workspace
    (`outputs/keys.sqlite`), a path those of another file. `api_key` may be set as well."""
    limits_in: Annotated[str | None, BeforeValidator(_redis), Field(repr=False)] = None
    """A Redis (`redis://[USER:PASSWORD@]HOST:PORT/DB`, or `rediss://` with TLS) that holds what named keys have spent, so that
    the limits hold for several gateways together. Without it they hold for those that share the key file."""
    allowed_hosts: list[str] = []
    """Names that clients may call this server by beside the address it listens on, such as the one a proxy forwards."""
    max_requests: Annotated[int, Field(gt=0)] = 2048
    """Questions answered at once; one more is refused with 429 and Retry-After."""
    max_waiting: Annotated[int, Field(ge=0)] = 1024
    """Questions that wait for the engine when it is full; one more is refused with 503 and Retry-After."""
    shutdown_timeout: Annotated[float, Field(ge=0)] = 8.0
    """Seconds that running answers are given to end after SIGTERM or Ctrl-C. `docker stop` kills after 10."""
    access_log: AccessLog = None
    """A line of JSON for each request: true takes `access.jsonl` of the workspace, a path another file."""
    traces: Traces = None
    """Spans for a collector of OpenTelemetry: its address, or true for the one that OTEL_EXPORTER_OTLP_ENDPOINT names."""
    capture: CaptureSpec | None = None
    """Which conversations are kept, for how long; without it none."""

    @model_validator(mode="after")
    def _limits_are_of_keys(self) -> Self:
        if self.limits_in is not None and self.keys is False:
            raise ValueError("limits_in holds what named keys have spent: set gateway.keys, too")
        return self

    @model_validator(mode="after")
    def _open_needs_a_key(self) -> Self:
        if self.host not in ("127.0.0.1", "localhost", "::1") and self.api_key is None and self.keys is False:
            raise ValueError(f"host {self.host} is reachable from other machines: set gateway.api_key, or gateway.keys")
        return self


class ServeRecipe(Document):
    """One base model, its variants, the engine and the gateway."""

    model: ModelSpec = ModelSpec()
    variants: list[Variant] = Field(min_length=1)
    routes: list[RouteSpec] = []
    engine: EngineSpec = EngineSpec()
    gateway: GatewaySpec = GatewaySpec()
    parity: Literal["require", "warn", "off"] = "require"
    """Whether each adapter must prove at the start that it answers as it was trained: `require` serves nothing otherwise,
    `warn` says so and serves, `off` does not ask."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [v.name for v in self.variants]
        for i, name in enumerate(names):
            if name in names[:i]:
                raise ValueError(f"variants[{i}].name: two variants are named {name}")
        return self

    @model_validator(mode="after")
    def _onnx_takes_the_folder_as_it_is(self) -> Self:
        if self.engine.backend == "onnx" and (self.model.tokenizer is not None or self.model.dtype != "auto"):
            which = "tokenizer" if self.model.tokenizer is not None else "dtype"
            raise ValueError(
                f"model.{which}: engine.backend: onnx serves the folder with its own. Leave it out, or export again"
            )
        return self

    @model_validator(mode="after")
    def _onnx_has_no_adapters(self) -> Self:
        named = next((i for i, variant in enumerate(self.variants) if variant.adapter is not None), None)
        if self.engine.backend == "onnx" and named is not None:
            raise ValueError(
                f"variants[{named}].adapter: engine.backend: onnx serves whole models. Export the run and serve its folder: "
                "llmbench export RUN --format onnx"
            )
        return self

    @model_validator(mode="after")
    def _routes_lead_to_variants(self) -> Self:
        variants = [one.name for one in self.variants]
        names = [*variants, *(route.name for route in self.routes)]
        for i, route in enumerate(self.routes):
            if names.count(route.name) > 1:
                other = "a variant" if route.name in variants else "another route"
                raise ValueError(f"routes[{i}].name: {other} is named {route.name} too")
            wanted = [*route.variants, *([route.shadow.variant] if route.shadow is not None else [])]
            if missing := next((name for name in wanted if name not in variants), None):
                raise ValueError(f"routes[{i}]: there is no variant {missing} (available: {', '.join(variants)})")
        return self

    def variant(self, name: str) -> Variant | None:
        """The variant of this name, or None."""
        return next((v for v in self.variants if v.name == name), None)
