"""The trained model as it was trained: what it says to the probes, and the merged model's folder that formats are made from."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from llmbench import hardware, parity
from llmbench.errors import LlmbenchError
from llmbench.exporting.source import Exportable
from llmbench.exporting.values import Heard, Probes, ProbeText
from llmbench.parity import Certificate
from llmbench.training import certificate
from llmbench.training.loading import adapter
from llmbench.training.loading.model import device_of, load_base, load_tokenizer, stop_at
from llmbench.training.merging import probes, weights
from llmbench.training.merging.weights import Plan

__all__ = ["Material", "Reference", "asked", "probes_of"]

_SPARE = 1.5
"""The trained model is asked in float32 where the machine has so many times the memory of its weights free."""
_EXTRA = (
    "\tif (a[i] <= b)  {\n\t\treturn x->y != z ? 0x7F : ~1;\n\t}\n\n\n    # four blanks, then   three",
    "   \n \t \n\nleading and trailing white space \t ",
    "1234567890 3.14159 1,000,000 007 ½ ² ٣٤٥ 一二三",
    "Don't we'll I'M THEY'RE can't've o'clock",
    "naïve café Ångström — “quotes” … «single» ¿qué? ¡olé!",
    "한국어 텍스트와 ภาษาไทย, हिन्दी, עברית, ελληνικά, ქართული",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f469\u200d\U0001f469\u200d\U0001f467 e\u0301 \u200bzero width\ufeff",
    "https://example.org/a?b=c&d=%20e#f user@example.org C:\\path\\file.txt",
    "aaaaaaaaaaaaaaaaaaaaaaaa!!!!!!!!????....----====____",
    "CamelCase snake_case kebab-case SCREAMING_CASE x86_64 ISO-8859-1",
)
"""Beside the probes of the certificate: what tells pre-tokenizers apart."""


@dataclass(frozen=True)
class Reference:
    """What is compared with: the trained model's answers to the probes, and its base's."""

    probes: Probes
    heard: Heard
    base: list[torch.Tensor] | None
    """The base's logits at the same positions; None where the base is not here, or there was none."""
    dtype: torch.dtype
    rows: int
    """How many of the prompts are rows of the training's data."""


class Material:
    """What a format is made from. Loads the model when it is first asked for, and keeps none in memory."""

    def __init__(self, source: Exportable, work: Path, say: Callable[[str], None], *, certify: bool = False) -> None:
        """Takes what is exported, a folder for what is made on the way, what is told of each step, and whether to certify."""
        self.source, self.work, self.say = source, work, say
        self.device = device_of(source.spec)
        self.stops = _stops(source)
        """The tokens that the training added to those at which the model stops."""
        self._folder = _prepared(source, work, self.stops) if source.adapts else source.folder
        self.tokenizer = self._tokenizer()
        """transformers' own, with the chat template that was trained with."""
        self.way: weights.Way | None = None
        """Which weights of a quantised base the adapter was merged onto; None before a merge, and without an adapter."""
        self.tied: bool | None = None
        """Whether the merged model's head is its embedding; None before it was made."""
        self.parameters: int | None = None
        """The merged model's; None before it was made."""
        self.certificate: Certificate | None = None
        """What the trained model says to the probes of a server; None unless it is to be certified, and before it was asked."""
        self.certify = certify
        self._made: dict[str, Path] = {}
        self._reference: Reference | None = None

    @property
    def adapter(self) -> Path:
        """The adapter's folder: PEFT's files, and llmbench.json.

        Raises:
            LlmbenchError: a whole model was trained.
        """
        if not self.source.adapts:
            raise LlmbenchError(f"run {self.source.run.name} trained all parameters, so there is no adapter")
        return self._folder

    @property
    def few_bits(self) -> bool:
        """Whether the base was in 4 or 8 bits while it was trained on."""
        return self.source.adapts and self._plan("float32").few_bits

    @property
    def native(self) -> str:
        """The precision of the base's, or the whole model's own files: float32, bfloat16 or float16."""
        values = self.source.config
        own = str(values.get("dtype") or values.get("torch_dtype") or "float32")
        return own if own in ("float32", "bfloat16", "float16") else "float32"

    def reference(self) -> Reference:
        """What the trained model says, asked once.

        Raises:
            LlmbenchError: the adapter changes nothing.
        """
        if self._reference is None:
            self.say("Asking the trained model")
            dtype = self._asking_dtype()
            base, heard, asked_with, rows = (self._of_adapter if self.source.adapts else self._of_model)(dtype)
            self._reference = Reference(asked_with, heard, base, dtype, rows)
            gc.collect()
        return self._reference

    def model(self, dtype: str) -> Path:
        """A folder with the whole model in transformers' format: safetensors, tokenizer, chat template, configurations.

        Args:
            dtype: of the weights: float32, bfloat16 or float16.
        """
        if dtype not in self._made:
            self.say(f"Merging in {dtype}" if self.source.adapts else f"Loading in {dtype}")
            folder = self.work / f"model-{dtype}"
            folder.mkdir(parents=True)
            model = self._merged(dtype) if self.source.adapts else self._whole(getattr(torch, dtype))
            embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
            self.tied = embedding.shape == head.shape and (embedding is head or torch.equal(embedding, head))
            self.parameters = sum(one.numel() for one in model.parameters())  # a tied head counts once
            model.config.use_cache = True
            model.save_pretrained(folder, max_shard_size="5GB")
            self.tokenizer.save_pretrained(folder)
            self._made[dtype] = folder
            del model
            gc.collect()
        return self._made[dtype]

    def base_model(self) -> Path:
        """A folder like that of `model`, in float32, with the base without the adapter, and with room for all tokens."""
        folder = self.work / "base"
        folder.mkdir(parents=True)
        model = weights.base(self._plan("float32"), torch.float32, few_bits=False)
        model.save_pretrained(folder, max_shard_size="5GB")
        self.tokenizer.save_pretrained(folder)
        return folder

    def with_adapter(self, folder: Path, dtype: torch.dtype) -> Any:
        """The base as it was trained on, with the adapter of a folder beside it, as PEFT alone loads it."""
        from peft import PeftModel

        plan = self._plan("float32")
        model = weights.base(plan, dtype, few_bits=plan.few_bits)
        return PeftModel.from_pretrained(model, str(folder))

    def _asking_dtype(self) -> torch.dtype:
        trained_in: torch.dtype = getattr(torch, self.source.run.lock["hardware"]["dtype"])
        if self.few_bits:
            return trained_in  # rounded weights are multiplied as they were
        return torch.float32 if _free(self.device) > _SPARE * 4 * self.source.parameters else trained_in

    def _of_adapter(self, dtype: torch.dtype) -> tuple[list[torch.Tensor] | None, Heard, Probes, int]:
        plan = self._plan("float32")
        prompts, rows = probes.texts(self.source.run.recipe, self.tokenizer)
        model = adapter.onto(weights.base(plan, dtype, few_bits=plan.few_bits), plan.adapter, plan.base)
        heard, wanted = _heard(model, self, prompts, dtype)
        sequences = [list(ids) for ids in wanted.sequences]
        del model
        gc.collect()
        base = probes.logits(weights.base(plan, dtype, few_bits=plan.few_bits), sequences, dtype)
        return base, heard, wanted, rows

    def _of_model(self, dtype: torch.dtype) -> tuple[list[torch.Tensor] | None, Heard, Probes, int]:
        prompts, rows = probes.texts(self.source.run.recipe, self.tokenizer)
        heard, wanted = _heard(self._whole(dtype), self, prompts, dtype)
        if self.source.base is None:
            return None, heard, wanted, rows
        gc.collect()
        base = load_base(self.source.spec, self.source.base, self.device, dtype).to(self.device)
        known = base.get_input_embeddings().weight.shape[0]
        if any(max(ids) >= known for ids in wanted.sequences):
            return None, heard, wanted, rows  # it has no such token
        return probes.logits(base, [list(ids) for ids in wanted.sequences], dtype), heard, wanted, rows

    def _whole(self, dtype: torch.dtype) -> Any:
        model = load_base(self.source.spec, self._folder, self.device, dtype).to(self.device)
        stop_at(model, self.stops)
        return model

    def _merged(self, dtype: str) -> Any:
        plan = self._plan(dtype)
        if plan.few_bits:
            reference = self.reference()
            sequences = [list(ids) for ids in reference.probes.sequences]
            said = probes.Answers([torch.from_numpy(one) for one in reference.heard.logits], reference.heard.greedy)
            self.way, _, model = weights.onto(plan, "auto", sequences, said)
        else:
            wide = self.native == "float32"  # else float32 weights would be rounded before the adapter is added, and after
            model = weights.base(plan, torch.float32 if wide else plan.dtype, few_bits=False)
            model = weights.merged(adapter.onto(model, plan.adapter, plan.base), plan.dtype)
            self.way = "base"
        stop_at(model, self.stops)
        return model

    def _plan(self, dtype: str) -> Plan:
        return weights.plan(self.source.run, self._folder, dtype=dtype)

    def _tokenizer(self) -> Any:
        if self.source.adapts:
            assert self.source.base is not None
            return weights.tokenizer_of(self.source.run, self._folder, self.source.base)
        known = self._folder if (self._folder / "tokenizer.json").is_file() else self.source.base
        found = load_tokenizer(known or self.source.spec.tokenizer, self.source.spec)
        found.chat_template = self.source.template_text() or found.chat_template
        return found


def asked(model: Any, tokenizer: Any, wanted: Probes, dtype: torch.dtype, *, tied: bool | None = None) -> Heard:
    """What a model of transformers and its tokenizer, read from an exported folder, say to the probes."""
    prompts = [list(ids[:n]) for ids, n in zip(wanted.sequences, wanted.prompts, strict=True)]
    return Heard(
        logits=[one.numpy() for one in probes.logits(model, [list(ids) for ids in wanted.sequences], dtype)],
        greedy=probes.greedy(model, prompts, dtype),
        tokens=[list(tokenizer(one.text, add_special_tokens=one.begins)["input_ids"]) for one in wanted.texts],
        stops=_stops_of(model),
        template=tokenizer.chat_template,
        tied=tied,
    )


def probes_of(tokenizer: Any, prompts: list[list[int]], written: list[list[int]], template_kwargs: dict[str, Any]) -> Probes:
    """The probes of prompts with what the trained model wrote after them."""
    from jinja2 import TemplateError

    texts = [chat[-1]["content"] for chat in parity.CHATS if len(chat) == 1] + list(_EXTRA)
    found = [ProbeText(text, False, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])) for text in texts]
    found += [ProbeText(text, True, tuple(tokenizer(text)["input_ids"])) for text in texts[:3]]
    for chat in parity.CHATS if tokenizer.chat_template else ():
        try:
            text = tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=True, **template_kwargs)
        except TemplateError:
            continue  # such as of a system prompt
        found.append(ProbeText(text, False, tuple(tokenizer(text, add_special_tokens=False)["input_ids"])))
    return Probes(
        tuple((*ids, *after) for ids, after in zip(prompts, written, strict=True)),
        tuple(len(ids) for ids in prompts),
        max(map(len, written)),
        tuple(found),
    )


def _heard(model: Any, material: Material, prompts: list[list[int]], dtype: torch.dtype) -> tuple[Heard, Probes]:
    """What the trained model says, and the probes that this makes."""
    stop_at(model, material.stops)
    stops = _stops_of(model)
    written = [_until(ids, stops) for ids in probes.greedy(model, prompts, dtype)]
    kwargs = material.source.run.recipe["data"].get("chat_template_kwargs") or {}
    wanted = probes_of(material.tokenizer, prompts, written, kwargs)
    said = probes.logits(model, [list(ids) for ids in wanted.sequences], dtype)
    if material.certify:
        made = certificate.of(
            model, material.tokenizer, dtype=dtype, quantized=material.few_bits, base={}, folder=material.source.folder,
            template_kwargs=kwargs,
        )  # fmt: skip
        plain = tuple(replace(probe, base=None, scaled={}) for probe in made.probes)
        material.certificate = replace(made, config={}, files={}, probes=plain)
    tokens = [list(one.ids) for one in wanted.texts]
    template = material.tokenizer.chat_template
    return Heard([one.numpy() for one in said], written, tokens, stops, template, None), wanted


def _until(ids: list[int], stops: frozenset[int]) -> list[int]:
    """What was written, up to the first token that ends it."""
    for i, token in enumerate(ids):
        if token in stops:
            return ids[: i + 1]
    return ids


def _stops_of(model: Any) -> frozenset[int]:
    """The tokens at which transformers stops this model."""
    found = model.generation_config.eos_token_id if getattr(model, "generation_config", None) is not None else None
    found = found if found is not None else model.config.get_text_config().eos_token_id
    return frozenset(found if isinstance(found, list) else [] if found is None else [found])


def _stops(source: Exportable) -> tuple[int, ...]:
    """The tokens that end the turns that were learned, as the training noted them, or else its data report names them."""
    for folder in (source.folder, source.run.adapter, source.run.model):
        try:
            return tuple(json.loads((folder / "llmbench.json").read_text(encoding="utf-8"))["stop_token_ids"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    try:
        names = json.loads((source.run.folder / "data.json").read_text(encoding="utf-8"))["train"]["turn_ends"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    place = source.folder if (source.folder / "tokenizer.json").is_file() else source.spec.tokenizer or source.base
    known = load_tokenizer(place, source.spec).get_vocab()
    return tuple(known[name] for name in names if name in known)


def _prepared(source: Exportable, work: Path, stops: tuple[int, ...]) -> Path:
    """The adapter's folder; of a checkpoint a copy with what the end of a training would have noted."""
    if source.step is None:
        return source.folder
    folder = work / "adapter"
    folder.mkdir(parents=True)
    names = (
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    )
    grown = bool((source.run.recipe.get("tokenizer") or {}).get("add_tokens"))
    for name in names:
        if (source.folder / name).is_file() and (grown or not name.startswith("tokenizer")):
            shutil.copyfile(source.folder / name, folder / name)
    model = source.run.lock.get("model", {})
    noted = {
        "run": source.run.name,
        "checkpoint": source.step,
        "recipe": source.run.recipe["name"],
        "method": source.run.recipe["method"],
        "base_model": source.spec.model_name_or_path,
        "base_revision": source.spec.revision,
        "base_fingerprint": model.get("fingerprint") or {},
        "stop_token_ids": list(stops),
    }
    (folder / "llmbench.json").write_text(json.dumps(noted, indent=2) + "\n", encoding="utf-8")
    return folder


def _free(device: str) -> float:
    """Bytes of memory that a model may take."""
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    known = hardware.memory()
    return float(known[1]) if known is not None else 0.0
