"""What is trained: an adapter beside the frozen base, single rows of the embedding, or the base's own parameters."""

from __future__ import annotations

import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmbench import provenance
from llmbench.errors import RecipeError
from llmbench.recipe import (
    FreezeSpec,
    IA3Spec,
    LoraSpec,
    OFTSpec,
    PromptTuningSpec,
    TrainRecipe,
    VeraSpec,
)
from llmbench.training.loading import targets

__all__ = [
    "adapted", "attach", "freeze", "keep_precision", "left_out", "onto", "plain", "starting_matrices",
]  # fmt: skip

Tensors = Mapping[str, torch.Tensor]


def attach(model: Any, recipe: TrainRecipe, folder: Path | None, new_rows: list[int]) -> Any:
    """The model with the recipe's adapter beside its frozen weights; what is trained is float32.

    Args:
        model: the base.
        recipe: with `lora` or `adapter`.
        folder: where the base's files are, to compare with the base of an adapter that is gone on from.
        new_rows: tokens that the recipe adds.

    Raises:
        RecipeError: PEFT refuses, or a name in the recipe means nothing in this model.
    """
    from peft import PeftConfig, PeftModel, get_peft_model

    place = "lora" if recipe.lora is not None else "adapter"
    try:
        with warnings.catch_warnings(), targets.literal_names():
            warnings.simplefilter("ignore")  # what PEFT warns of is refused, by the recipe or by `_check_names`
            if recipe.adapter_name_or_path is None:
                model = get_peft_model(model, _config(recipe, model, new_rows))
            else:
                path = Path(recipe.adapter_name_or_path)
                _check_continues(path, folder)
                config = targets.as_modules(PeftConfig.from_pretrained(str(path)), model)
                config.base_model_name_or_path = str(folder)  # PEFT would look a name up on the hub
                _set_dropout(config, recipe)
                model = PeftModel.from_pretrained(model, str(path), is_trainable=True, config=config)
    except (ValueError, TypeError, RuntimeError) as error:
        where = f"{place}.target_modules" if "target module" in str(error).lower() else place
        raise RecipeError(f"{where}: {_first(error)}") from error
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    _check_names(model, recipe)
    _give_head_a_bias(model)
    return model


def left_out(model: Any, recipe: TrainRecipe) -> tuple[targets.LeftOut, ...]:
    """What of a base gets no adapter though the recipe says `all-linear`, and experts that it does not name."""
    section = recipe.lora or recipe.adapter
    if recipe.adapter_name_or_path is not None or isinstance(section, PromptTuningSpec | IA3Spec | None):
        return ()
    parameters = section.target_parameters if isinstance(section, LoraSpec) else []
    one = targets.experts(model, parameters) if isinstance(section, LoraSpec) else None
    others = targets.linears(model, lora=recipe.lora is not None)[1] if section.target_modules == "all-linear" else ()
    return (*others, *([one] if one is not None else []))


def adapted(model: Any) -> tuple[dict[str, int], int]:
    """How many modules of each name have an adapter, and the parameters of all of them together."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    counts: Counter[str] = Counter()
    for name, module in model.named_modules():
        if isinstance(module, BaseTunerLayer) and name:
            parts = [part for part in name.split(".") if part not in ("base_layer", "default") and not part.isdigit()]
            counts[getattr(module, "parameter_name", parts[-1])] += 1
    return dict(counts), sum(p.numel() for p in model.parameters() if p.requires_grad)


def _config(recipe: TrainRecipe, model: Any, new_rows: list[int]) -> Any:
    """The section as PEFT's config of its kind."""
    import peft

    kind = recipe.lora or recipe.adapter
    task = "SEQ_CLS" if recipe.method == "reward" else "CAUSAL_LM"  # the head of a reward model is trained whole
    match kind:
        case LoraSpec():
            return _lora_config(kind, model, new_rows, task)
        case OFTSpec() | VeraSpec():
            values = kind.model_dump(exclude={"type", "save_dtype", "modules_to_save"})
            if kind.target_modules == "all-linear":
                values["target_modules"] = targets.linears(model, lora=False)[0]
            config = peft.OFTConfig if isinstance(kind, OFTSpec) else peft.VeraConfig
            return config(task_type=task, modules_to_save=kind.modules_to_save or None, **values)
        case IA3Spec():
            return peft.IA3Config(
                task_type=task,
                target_modules=kind.target_modules,
                feedforward_modules=kind.feedforward_modules if kind.target_modules is None else kind.feedforward_modules or [],
                modules_to_save=kind.modules_to_save or None,
            )
        case PromptTuningSpec():
            return peft.PromptTuningConfig(
                task_type=task,
                num_virtual_tokens=kind.num_virtual_tokens,
                prompt_tuning_init=kind.prompt_tuning_init,
                prompt_tuning_init_text=kind.prompt_tuning_init_text,
                tokenizer_name_or_path=model.name_or_path if kind.prompt_tuning_init == "TEXT" else None,
            )
    raise AssertionError("no adapter in this recipe")


def _lora_config(spec: LoraSpec, model: Any, new_rows: list[int], task: str) -> Any:
    from peft import EvaConfig, LoftQConfig, LoraConfig

    from llmbench.recipe import EvaSpec, LoftQSpec

    own = {
        "loftq_config", "eva_config", "loraplus_lr_ratio", "save_dtype", "modules_to_save", "trainable_token_indices",
        "target_parameters",
    }  # fmt: skip
    values = spec.model_dump(exclude=own)
    if spec.target_modules == "all-linear":
        values["target_modules"] = targets.linears(model, lora=True)[0]
    if spec.start == "loftq":
        values["loftq_config"] = LoftQConfig(**(spec.loftq_config or LoftQSpec()).model_dump())
    if spec.start == "eva":
        values["eva_config"] = EvaConfig(**(spec.eva_config or EvaSpec()).model_dump())
    return LoraConfig(
        task_type=task,
        modules_to_save=list(spec.modules_to_save) or None,
        trainable_token_indices=_rows(spec, model, new_rows),
        target_parameters=list(spec.target_parameters) or None,
        **values,
    )


def _rows(spec: LoraSpec, model: Any, new_rows: list[int]) -> list[int] | dict[str, list[int]] | None:
    """Rows of the embedding that are trained; new ones in the head as well, where it is a matrix of its own."""
    saved = {name.rsplit(".", 1)[-1] for name in spec.modules_to_save}
    embedding, head = _name(model, model.get_input_embeddings()), _name(model, model.get_output_embeddings())
    if not new_rows or embedding in saved:
        return spec.trainable_token_indices
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    old = spec.trainable_token_indices or []
    if tied and not isinstance(old, dict):
        return sorted({*old, *new_rows})
    rows = dict(old) if isinstance(old, dict) else {embedding: old}
    for name in (embedding,) if tied or head in saved else (embedding, head):
        rows[name] = sorted({*rows.get(name, []), *new_rows})
    return rows


def _name(model: Any, module: Any) -> str:
    """The last part of a module's name."""
    return next((name.rsplit(".", 1)[-1] for name, found in model.named_modules() if found is module), "")


def _set_dropout(config: Any, recipe: TrainRecipe) -> None:
    for section, name in ((recipe.lora, "lora_dropout"), (recipe.adapter, "vera_dropout"), (recipe.adapter, "module_dropout")):
        if section is not None and hasattr(section, name):
            setattr(config, name, getattr(section, name))


def _check_continues(path: Path, folder: Path | None) -> None:
    """An adapter that is trained further must be safetensors, and of this base."""
    if not (path / "adapter_model.safetensors").is_file():
        raise RecipeError(f"adapter_name_or_path: {path} has no adapter_model.safetensors, and llmbench does not open pickles")
    manifest = path / "llmbench.json"
    if not manifest.exists() or folder is None:
        return
    try:
        trained_on = json.loads(manifest.read_text(encoding="utf-8"))["base_fingerprint"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"adapter_name_or_path: {manifest} cannot be read ({type(error).__name__}: {error})") from error
    here = provenance.fingerprint(folder)
    if trained_on.get("weights") != here.get("weights"):
        raise RecipeError(
            f"adapter_name_or_path: {path} was trained on another base (weights {str(trained_on.get('weights'))[:12]}, here "
            f"{str(here.get('weights'))[:12]}); set model.model_name_or_path to its base"
        )


def _check_names(model: Any, recipe: TrainRecipe) -> None:
    """PEFT passes over names that match nothing as long as one does; here each must mean something."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import ModulesToSaveWrapper

    section: Any = recipe.lora or recipe.adapter
    if isinstance(section, PromptTuningSpec):
        return
    place = "lora" if recipe.lora is not None else "adapter"
    tuned = [name for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    whole = [name for name, module in model.named_modules() if isinstance(module, ModulesToSaveWrapper)]
    looked_up: list[tuple[str, list[str], list[str]]] = [
        ("target_modules", section.target_modules if isinstance(section.target_modules, list) else [], tuned),
        ("modules_to_save", section.modules_to_save, whole),
        ("rank_pattern", list(getattr(section, "rank_pattern", {})), tuned),
        ("alpha_pattern", list(getattr(section, "alpha_pattern", {})), tuned),
    ]
    for field, wanted, there in looked_up:
        for name in wanted:
            if not any(re.fullmatch(rf"(.*\.)?({name})", module) for module in there):
                raise RecipeError(f"{place}.{field}: no module of this model is named {name}; {_known(model)}{_fused(model)}")
    layers = getattr(section, "layers_to_transform", None)
    for layer in [layers] if isinstance(layers, int) else layers or []:
        if not any(f".{layer}." in name for name in tuned):
            raise RecipeError(f"{place}.layers_to_transform: there is no layer {layer} (layers count from 0)")
    if getattr(section, "bias", "none") != "none" and not any(
        p.requires_grad and name.endswith(".bias") for name, p in model.named_parameters()
    ):
        raise RecipeError(f"{place}.bias: {section.bias}, but no layer that is adapted has a bias; write bias: none")
    base = model.get_base_model()
    if isinstance(base.get_output_embeddings(), BaseTunerLayer):
        raise RecipeError(
            f"{place}.target_modules: an adapter on the head would never be trained, because the loss is computed from the "
            "head's own weights; add it to modules_to_save"
        )


def _known(model: Any) -> str:
    """The names of the model's linear layers, for a message."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    kinds = (torch.nn.Linear, torch.nn.Embedding, BaseTunerLayer)
    found = {name.rsplit(".", 1)[-1] for name, module in model.get_base_model().named_modules() if isinstance(module, kinds)}
    inner = {"base_layer", "default"}
    return f"available: {', '.join(sorted(found - inner))}"


def _fused(model: Any) -> str:
    """Where the projections of a mixture's experts are, for a message about a name that is not there."""
    one = targets.experts(model.get_base_model())
    return "" if one is None else f". {one.reason[0].upper()}{one.reason[1:]}"


def _give_head_a_bias(model: Any) -> None:
    """TRL reads weight and bias of the head, and PEFT's wrapper for trained rows has no bias to show."""
    from peft.utils.other import TrainableTokensWrapper

    head = model.get_base_model().get_output_embeddings()
    if isinstance(head, TrainableTokensWrapper):
        object.__setattr__(head, "bias", getattr(head.original_module, "bias", None))


def onto(model: Any, folder: Path, base: Path) -> Any:
    """A base with a saved adapter beside its weights, as PEFT loads it.

    Args:
        model: the base, with room for all of the adapter's tokens.
        folder: the adapter's.
        base: where the base's files are; PEFT would look up the name in the adapter's configuration on the hub.
    """
    from peft import PeftConfig, PeftModel

    config = targets.as_modules(PeftConfig.from_pretrained(str(folder)), model)
    config.base_model_name_or_path = str(base)
    with warnings.catch_warnings(), targets.literal_names():
        warnings.simplefilter("ignore")  # of tied embeddings, which proofs are about
        return PeftModel.from_pretrained(model, str(folder), config=config)


def freeze(model: Any, spec: FreezeSpec) -> None:
    """Keeps the first layers, or those that a regular expression finds, and the embeddings as they are.

    Raises:
        RecipeError: nothing is found, or nothing is left to train.
    """
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    frozen = 0
    for name, parameter in model.named_parameters():
        match spec.layers:
            case int(count):
                layer = re.search(r"\.(\d+)\.", name)
                hit = layer is not None and int(layer[1]) < count
            case str(pattern):
                hit = re.search(pattern, name) is not None
            case _:
                hit = False
        frozen += hit
        if hit or (spec.embeddings and (parameter is embedding or (head is not None and parameter is head.weight))):
            parameter.requires_grad = False
    if spec.layers is not None and not frozen:
        raise RecipeError(f"freeze.layers: {spec.layers} matches no parameter of this model")
    layers = [p.requires_grad for name, p in model.named_parameters() if re.search(r"\.\d+\.", name)]
    if not any(layers) and isinstance(spec.layers, int):
        raise RecipeError(f"freeze.layers: {spec.layers} covers every layer of this model; nothing is left to train")
    if not any(p.requires_grad for p in model.parameters()):
        raise RecipeError("freeze: nothing is left to train")


def starting_matrices(model: Any, recipe: TrainRecipe) -> dict[str, torch.Tensor]:
    """A and B as PiSSA and OLoRA begin with; empty for starts that leave the base alone."""
    if recipe.lora is None or recipe.lora.start not in ("pissa", "olora") or recipe.adapter_name_or_path is not None:
        return {}
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().clone() for name, tensor in state.items() if _half(name)}


def plain(state: Tensors, start: Tensors) -> dict[str, torch.Tensor]:
    """An adapter for the untouched base, from one for a base out of which its start was taken.

    W' + s B A = W + s (B A - B0 A0) = W + s [B, -B0] [A; A0]: twice the rank, nothing lost but the rounding of W' in bfloat16.
    """
    result = dict(state)
    for name, first in start.items():
        last = state[name]
        side = _half(name)
        first = first.to(last.dtype).to(last.device)
        result[name] = torch.cat([last, first], dim=0) if side == "A" else torch.cat([last, -first], dim=1)
    return result


def plain_config(config: dict[str, Any]) -> dict[str, Any]:
    """adapter_config.json of what `plain` makes: ranks doubled, and alphas so that the scale stays."""
    factor = 2**0.5 if config["use_rslora"] else 2
    return {
        **config,
        "init_lora_weights": True,
        "r": 2 * config["r"],
        "lora_alpha": factor * config["lora_alpha"],
        "rank_pattern": {name: 2 * rank for name, rank in (config["rank_pattern"] or {}).items()},
        "alpha_pattern": {name: factor * alpha for name, alpha in (config["alpha_pattern"] or {}).items()},
    }


def _half(name: str) -> str:
    found = re.search(r"lora_(?:embedding_)?([AB])", name)
    return found[1] if found else ""


@contextmanager
def keep_precision(model: Any) -> Iterator[None]:
    """Around the making of one of TRL's trainers, which rounds what is trained beside a quantised base to bfloat16.

    Small updates would be lost in it, and so would digits of an adapter that is trained further.
    """
    rounds = getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False)
    before = {name: p.data for name, p in model.named_parameters() if p.requires_grad} if rounds else {}
    yield
    for name, parameter in model.named_parameters():
        if name in before:
            parameter.data = before[name]


def _first(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
