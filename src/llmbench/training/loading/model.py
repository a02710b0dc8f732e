"""The model and its tokenizer: found, checked, loaded in the right precision, and given what is to be trained."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from llmbench import architecture, assets, hardware, scan
from llmbench.data import vocabulary
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import ModelSpec, TrainRecipe
from llmbench.recipe.combination import refusals
from llmbench.training.loading import adapter, quantized, targets

__all__ = [
    "Loaded", "attention", "computation_dtype", "device_of", "load_base", "load_model", "load_tokenizer", "local_folder",
    "resize", "stop_at",
]  # fmt: skip

_CONNECT_SECONDS = 5.0
_ROPE = ("rope_theta", "rope_scaling")
"""Fields of transformers 4 that version 5 still takes and moves into `rope_parameters`."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to train, and how."""

    model: Any
    tokenizer: Any
    folder: Path | None
    """Where the base came from; None when it started from random weights."""
    device: str
    dtype: torch.dtype
    """Precision of the computation; trained parameters are float32."""
    start: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """LoRA's matrices as they began, where the start was taken out of the base (PiSSA, OLoRA)."""
    grown: bool = False
    """Whether the tokenizer knows tokens that the base's does not, so that it must be saved with the adapter."""
    left_out: tuple[targets.LeftOut, ...] = ()
    """What `all-linear` leaves without an adapter in this model, and why."""
    plain_head: bool = False
    """Whether the loss must be computed from the model's own logits, because there is more to them than the head's weights."""

    @property
    def context(self) -> int | None:
        """Tokens that the model reads at once; None where its configuration does not say."""
        found: int | None = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return found


def load_model(recipe: TrainRecipe) -> Loaded:
    """Loads the model and its tokenizer and adds what is trained, as the recipe says.

    Raises:
        LlmbenchError: not found, hub not reachable, no safetensors, no GPU where the recipe asks for one, or parts of the
            recipe that do not go together on this model.
    """
    spec = recipe.model
    device = device_of(spec)
    dtype = computation_dtype(spec, device)
    if device == "cpu" and dtype == torch.float16:
        raise RecipeError("model.dtype: training in float16 does not work on a CPU. Use auto, bfloat16 or float32.")
    if device == "cpu" and recipe.lora is not None and recipe.lora.start == "loftq":
        raise RecipeError(
            "lora.init_lora_weights: PEFT needs an NVIDIA GPU for LoftQ, and this trains on a CPU; use eva, or quantization "
            "alone"
        )
    folder = None
    if spec.config is None or spec.tokenizer is None:
        folder = local_folder(spec)
    for place in {folder, spec.tokenizer} - {None}:
        scan.folder(Path(str(place)), trust_remote_code=spec.trust_remote_code)
    started = Path(recipe.adapter_name_or_path) if recipe.adapter_name_or_path is not None else None
    grown = started if started is not None and (started / "tokenizer.json").exists() else None  # it brings tokens along
    if folder is not None:
        architecture.read(folder)  # before the tokenizer, whose class reads it too
    tokenizer = load_tokenizer(spec.tokenizer or grown or folder, spec)
    new_rows = vocabulary.add_tokens(tokenizer, recipe.tokenizer) if recipe.tokenizer is not None else []
    if spec.config is not None:
        model, base = _from_config(spec, spec.config, tokenizer).to(device), None
    else:
        assert folder is not None
        model, base = _to_train(recipe, folder, device, dtype), folder
    resize(model, tokenizer)
    left_out: tuple[targets.LeftOut, ...] = ()
    if recipe.adapts:
        left_out = adapter.left_out(model, recipe)
        model = adapter.attach(model, recipe, base, new_rows)
        if quantized.is_quantized(model):
            quantized.probe(model, "lora" if recipe.lora is not None else "adapter")
    elif recipe.freeze is not None:
        adapter.freeze(model, recipe.freeze)
    model.config.use_cache = False
    start = adapter.starting_matrices(model, recipe)
    known = bool(new_rows) or grown is not None
    return Loaded(model, tokenizer, base, device, dtype, start, grown=known, left_out=left_out)


def load_tokenizer(folder: Path | None, spec: ModelSpec) -> Any:
    """The tokenizer of a folder, with a token to pad with.

    Raises:
        LlmbenchError: there is none, or none with a tokenizer.json.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=spec.trust_remote_code)
    except Exception as error:  # tokenizers raises plain ones
        if folder is not None:
            scan.tokenizer(folder)
        if not isinstance(error, (OSError, ValueError, KeyError)):
            raise
        raise LlmbenchError(f"{folder}: no tokenizer can be loaded from there ({_first(error)}).") from error
    vocabulary.refuse_empty(tokenizer, folder)
    if not tokenizer.is_fast:
        raise LlmbenchError(f"{folder}: the tokenizer has no tokenizer.json, which llmbench needs.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def stop_at(model: Any, ends: Sequence[int]) -> None:
    """Has a model stop at the tokens that end the turns it learns, besides its own: in what it writes, and as it is saved.

    A base model's own is often the end of a text alone, and a chat that it learned ends its turns with another token.
    """
    for config in (getattr(model, "generation_config", None), model.config, model.config.get_text_config()):
        if config is not None and hasattr(config, "eos_token_id"):  # a model of images and text has its own inside
            config.eos_token_id = vocabulary.stops_with(config.eos_token_id, ends)


def resize(model: Any, tokenizer: Any) -> None:
    """Gives the model rows for tokens that it has none for; many models have spare ones."""
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(len(tokenizer))


def attention(spec: ModelSpec) -> str | None:
    """What transformers is asked for: None, where it takes sdpa if the model has it and eager otherwise."""
    return None if spec.attn_implementation == "auto" else spec.attn_implementation


def device_of(spec: ModelSpec) -> str:
    """`cpu` or `cuda`.

    Raises:
        RecipeError: the recipe asks for a GPU and there is none.
    """
    if spec.device == "cuda" and not torch.cuda.is_available():
        raise RecipeError("model.device: cuda, but torch sees no NVIDIA GPU. Use model.device=auto, or run llmbench doctor")
    if spec.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return spec.device


def computation_dtype(spec: ModelSpec, device: str) -> torch.dtype:
    """What `auto` means here: bfloat16 where the hardware multiplies faster in it, else float32."""
    if spec.dtype != "auto":
        dtype: torch.dtype = getattr(torch, spec.dtype)
        return dtype
    if device == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if hardware.bfloat16_pays() else torch.float32


def local_folder(spec: ModelSpec) -> Path:
    """The folder of a model: the bundled one, one on this disk, or the hub's, downloaded (safetensors only).

    Raises:
        LlmbenchError: not found, no access, or not downloaded while the hub is out of reach. Answers within seconds.
    """
    name = assets.model_folder(spec.model_name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            raise LlmbenchError(f"{name}: {architecture.not_a_model(folder)}")
        return folder
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise LlmbenchError(f"model.model_name_or_path: there is no folder {name}. Name a model's folder, or a hub name.")
    return _from_hub(name, spec)


def _from_hub(name: str, spec: ModelSpec) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub = _hub()
    reachable = _answers(hub)
    wanted = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"] + (["*.py"] if spec.trust_remote_code else [])
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=spec.revision,
                allow_patterns=wanted,
                ignore_patterns=["*/*"],
                local_files_only=not reachable,
            )
        )
    except GatedRepoError as error:
        raise LlmbenchError(
            f"{name}: access must be granted by its owner. Request it at {hub}/{name}, then set HF_TOKEN."
        ) from error
    except RevisionNotFoundError as error:
        raise LlmbenchError(f"{name}: has no revision {spec.revision}. See {hub}/{name}/commits.") from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise LlmbenchError(
            f"model.model_name_or_path: {name} is neither a folder nor a model on {hub}. Check the name."
        ) from error
    except LocalEntryNotFoundError as error:
        raise LlmbenchError(
            f"{name}: no such folder, not in the cache, and {hub} cannot be reached. "
            f"Check the network or the name, or use model.model_name_or_path={assets.TINY}"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise LlmbenchError(
            f"{name}: the download from {hub} was interrupted ({_first(error)}). Run it again to continue."
        ) from error
    if not list(folder.glob("*.safetensors")):
        raise LlmbenchError(
            f"{name}: has no safetensors weights, and llmbench does not load pickled ones. Choose another model."
        )
    return folder


def _hub() -> str:
    from huggingface_hub import constants

    return constants.ENDPOINT


def _answers(url: str) -> bool:
    """Whether the hub (or the proxy on the way to it) takes a connection within seconds; the hub's client tries for minutes."""
    import os
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or os.environ.get("TRANSFORMERS_OFFLINE"):
        return False
    parts = urlsplit(url)
    proxy = getproxies().get(parts.scheme)
    if proxy and not proxy_bypass(parts.hostname or ""):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS):
            return True
    except OSError:
        return False


def _from_config(spec: ModelSpec, values: dict[str, Any], tokenizer: Any) -> Any:
    """A model of random weights, float32, its vocabulary and special tokens those of the tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM

    scan.values(values, "model.config")
    values = dict(values)
    kind = values.pop("model_type", None)
    if kind is None:
        raise RecipeError("model.config.model_type is missing: name an architecture of transformers, such as qwen3 or llama.")
    tokens = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    try:
        config = AutoConfig.for_model(kind, **{**tokens, **values})
    except (ValueError, TypeError, KeyError) as error:
        raise RecipeError(f"model.config: {_first(error)}") from error
    known = type(config)()
    older = _ROPE if hasattr(known, "rope_parameters") else ()
    unknown = sorted(key for key in values if not hasattr(known, key) and key not in older)
    if unknown:
        raise RecipeError(f"model.config: {kind} has no field {', '.join(unknown)}.")
    if config.vocab_size < len(tokenizer):
        raise RecipeError(f"model.config.vocab_size: {config.vocab_size}, but the tokenizer has {len(tokenizer)} tokens.")
    refused = architecture.refusal(config.to_dict(), attn_implementation=spec.attn_implementation)
    if refused is not None:
        raise RecipeError(f"model.config: {refused}")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention(spec))  # type: ignore[no-untyped-call]
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _to_train(recipe: TrainRecipe, folder: Path, device: str, dtype: torch.dtype) -> Any:
    """The pretrained model: frozen weights in the computation's precision or in few bits, trained ones in float32."""
    from peft import prepare_model_for_kbit_training

    config = architecture.read(folder)
    spec = recipe.model
    other = architecture.refusal(config, attn_implementation=spec.attn_implementation, judge=recipe.method == "reward")
    if other is not None:
        raise RecipeError(f"{spec.model_name_or_path}: {other}")
    refused = [architecture.no_weights(folder), architecture.misfit(folder, config), *refusals(recipe, config)]
    for reason in filter(None, refused):
        raise RecipeError(reason)
    quantized.check_package(recipe.model.model_name_or_path, config)
    quantization = quantized.config(recipe.quantization, dtype) if recipe.quantization is not None else None
    model = load_base(
        recipe.model, folder, device, dtype if recipe.adapts else torch.float32, quantization, judge=recipe.method == "reward"
    )
    if quantized.is_quantized(model):
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # type: ignore[no-untyped-call]
    return model


def load_base(
    spec: ModelSpec, folder: Path, device: str, dtype: torch.dtype, quantization: Any = None, *, judge: bool = False
) -> Any:
    """A pretrained model from its folder; `quantization` is bitsandbytes' config, or None; a `judge` gives one score.

    Raises:
        LlmbenchError: it cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForSequenceClassification if judge else AutoModelForCausalLM
    values = architecture.read(folder)
    few_bits = quantization is not None or "quantization_config" in values
    wanted = architecture.attention(values, spec.attn_implementation)
    known = quantized.trainable(folder, trust_remote_code=spec.trust_remote_code)
    if wanted is not None and architecture.names_attention(values):  # which transformers puts above what it is asked for
        config = known.get("config") or AutoConfig.from_pretrained(str(folder), trust_remote_code=spec.trust_remote_code)
        config._attn_implementation = wanted
        config.num_labels = 1 if judge else config.num_labels
        known = {"config": config}
    try:
        model, loading = kind.from_pretrained(
            str(folder),
            output_loading_info=True,
            **({"num_labels": 1} if judge and "config" not in known else {}),
            dtype=dtype,
            attn_implementation=wanted,
            trust_remote_code=spec.trust_remote_code,
            use_safetensors=True,
            # Straight to the GPU: its kernels are what is tried before training, and few hosts have room for the whole base.
            # The bare name stands for the GPU of this process's LOCAL_RANK.
            device_map="cuda" if device == "cuda" else {"": device} if few_bits else None,
            local_files_only=True,
            **({} if quantization is None else {"quantization_config": quantization}),  # a None would unquantise the base's own
            **known,
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:  # a configuration that is off fails anywhere in transformers
        reason = "its weights do not have the shapes in config.json" if "mismatched" in str(error) else _first(error)
        raise LlmbenchError(f"{spec.model_name_or_path}: the model cannot be loaded ({reason}).") from error
    missing = sorted(name for name in loading["missing_keys"] if not (judge and name.startswith(("score", "classifier"))))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise LlmbenchError(
            f"{spec.model_name_or_path}: its weights lack {missing[0]}{more}, which would be random. Download it again."
        )
    quantized.keep_gradients(model)
    return model


def _first(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
