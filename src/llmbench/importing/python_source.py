"""Training scripts and notebooks: the literal keyword arguments of the calls that say how it trains. Nothing is executed.

Read by `ast`: numbers, texts, lists and mappings as they stand, and names that the file gives such a value exactly once.
Whatever is computed is reported as unread.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from llmbench.errors import RecipeError
from llmbench.importing.foreign import Foreign, Unread, text_of

__all__ = ["read"]

_TRAINERS = {
    "SFTTrainer": "sft", "UnslothTrainer": "sft", "DPOTrainer": "dpo", "ORPOTrainer": "orpo", "KTOTrainer": "kto",
    "RewardTrainer": "reward", "GRPOTrainer": "grpo", "GKDTrainer": "gkd", "CPOTrainer": "cpo", "PPOTrainer": "ppo",
    "RLOOTrainer": "rloo",
}  # fmt: skip
_CONFIGS = ("Config", "Arguments")
_PEFT = {"r": "lora_r", "target_modules": "lora_target_modules", "modules_to_save": "lora_modules_to_save"}
_BNB = {"bnb_4bit_use_double_quant": "use_bnb_nested_quant"}
_OBJECTS = {
    "model", "tokenizer", "processing_class", "args", "train_dataset", "eval_dataset", "peft_config", "data_collator",
    "callbacks",
    "formatting_func", "ref_model", "compute_metrics", "preprocess_logits_for_metrics", "quantization_config",
    "bnb_4bit_compute_dtype",
}  # fmt: skip
"""Arguments that take objects, which other calls describe."""


def read(path: Path) -> Foreign:
    """The settings of one training.

    Raises:
        RecipeError: it is no Python or no notebook, or has no call of a trainer, or several of different trainers.
    """
    text = text_of(path)
    source = _cells(path, text) if path.suffix.lower() == ".ipynb" else text
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise RecipeError(f"{path}:{getattr(error, 'lineno', None) or 1}: is not valid Python ({error})") from error
    except (RecursionError, MemoryError) as error:
        raise RecipeError(f"{path}: nested too deeply to be read") from error
    return _Script(path, text, tree).foreign()


def _cells(path: Path, text: str) -> str:
    """The code of a notebook, its shell lines and magics left out."""
    try:
        cells = json.loads(text)["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecipeError(f"{path}: is not a notebook (JSON with cells)") from error
    lines = [line for cell in code for line in cell.splitlines()]
    if any(cell.lstrip().startswith("%%") for cell in code):
        lines = [line for cell in code if not cell.lstrip().startswith("%%") for line in cell.splitlines()]
    return "\n".join("pass" if re.match(r"[!%]", line) else re.sub(r"^(\s+)[!%].*", r"\1pass", line) for line in lines) + "\n"


class _Script:
    """One file's calls."""

    def __init__(self, path: Path, text: str, tree: ast.Module) -> None:
        self.path, self.text, self.tree = path, text, tree
        self.values: dict[str, Any] = {}
        self.lines: dict[tuple[str | int, ...], int] = {}
        stored = Counter(n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
        self.constants: dict[str, ast.expr] = {}
        self.assigned: dict[str, ast.Call] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(target := node.targets[0], ast.Name):
                if isinstance(node.value, ast.Call):
                    self.assigned.setdefault(target.id, node.value)
                elif stored[target.id] == 1:
                    self.constants[target.id] = node.value

    def foreign(self) -> Foreign:
        """Everything that the calls say."""
        calls = sorted((n for n in ast.walk(self.tree) if isinstance(n, ast.Call)), key=lambda n: (n.lineno, n.col_offset))
        names = [(_name(call.func), call) for call in calls]
        kinds = list(dict.fromkeys(_TRAINERS[name] for name, _ in names if name in _TRAINERS))
        if len(kinds) != 1:
            what = f"trains with {' and '.join(kinds)}" if kinds else "has no call of a trainer (SFTTrainer and its like)"
            raise RecipeError(f"{self.path}: {what}. Import a script or notebook of one training")
        fast = any(_outer(call.func).startswith("Fast") for _, call in names)
        for name, call in names:
            if (
                name == "from_pretrained"
                and (fast == _outer(call.func).startswith("Fast"))
                and "Tokenizer" not in _outer(call.func)
            ):
                self._model(call, fast)
            elif name == "get_peft_model" and fast:
                self._take(call, {})
            elif name == "LoraConfig" and not fast:
                self._peft(call)
            elif name == "BitsAndBytesConfig":
                self._take(call, _BNB)
            elif name.endswith(_CONFIGS) and (
                name == "TrainingArguments" or name.removesuffix("Config") + "Trainer" in _TRAINERS
            ):
                self._take(call, {})
                self.values["config_class"] = name
            elif name in _TRAINERS:
                self._trainer(call)
            elif name == "train_on_responses_only":
                self._put("train_on_responses_only", True, call)
            elif name == "get_chat_template":
                self._take(call, {}, only=("chat_template",))
        self._dataset([call for name, call in names if name == "load_dataset"])
        if any(name == "map" for name, _ in names):
            self.values["map"] = True
        self.values.pop("config_class", None) if not fast else None
        return Foreign(self.path, self.text, self.values, self.lines, "unsloth script" if fast else f"trl {kinds[0]}")

    def _put(self, key: str, value: Any, node: ast.AST) -> None:
        self.values[key] = value
        self.lines[(key,)] = getattr(node, "lineno", 1)

    def _take(self, call: ast.Call, names: dict[str, str], only: tuple[str, ...] = ()) -> None:
        for keyword in call.keywords:
            if keyword.arg is None or keyword.arg in _OBJECTS or (only and keyword.arg not in only):
                continue
            self._put(names.get(keyword.arg, keyword.arg), self._value(keyword.value), keyword.value)

    def _value(self, node: ast.expr) -> Any:
        """What an expression is, as far as it can be read; what depends on the hardware is `auto`."""
        if isinstance(node, ast.Name) and node.id in self.constants:
            node = self.constants[node.id]
        source = ast.unparse(node)
        if re.search(r"is_bf(loat)?16_supported\(\)", source):
            return False if source.startswith("not ") else "auto"
        if re.fullmatch(r"torch\.(float32|bfloat16|float16)", source):
            return source.removeprefix("torch.")
        try:
            return _plain(ast.literal_eval(node))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return Unread(source[:60])

    def _model(self, call: ast.Call, fast: bool) -> None:
        self._take(call, {} if fast else {"torch_dtype": "dtype"})
        key = "model_name" if fast else "model_name_or_path"
        for name in ("model_name", "pretrained_model_name_or_path"):
            if name in self.values and name != key:
                self.values[key] = self.values.pop(name)
        if call.args and key not in self.values:
            self._put(key, self._value(call.args[0]), call.args[0])

    def _peft(self, call: ast.Call) -> None:
        """peft's LoraConfig, whose own defaults are not those of TRL's options."""
        self.values |= {"use_peft": True, "lora_r": 8, "lora_alpha": 8, "lora_dropout": 0.0}
        for keyword in call.keywords:
            if keyword.arg not in (None, "task_type", "bias") or (
                keyword.arg == "bias" and self._value(keyword.value) != "none"
            ):
                self._put(_PEFT.get(str(keyword.arg), str(keyword.arg)), self._value(keyword.value), keyword.value)

    def _trainer(self, call: ast.Call) -> None:
        self._take(call, {})
        for keyword in call.keywords:
            if keyword.arg == "model" and isinstance(model := self._value(keyword.value), str):
                self._put("model_name_or_path", model, keyword.value)
            if keyword.arg == "eval_dataset" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is None):
                self._put("eval_dataset", Unread(ast.unparse(keyword.value)[:60]), keyword.value)
            if keyword.arg == "train_dataset" and isinstance(keyword.value, ast.Name):
                self.values["_train"] = keyword.value.id

    def _dataset(self, calls: list[ast.Call]) -> None:
        """The one `load_dataset` of the rows that are trained on."""
        wanted = self.values.pop("_train", None)
        chosen = self.assigned.get(wanted) if wanted else None
        if chosen not in calls:
            chosen = calls[0] if calls else None
        if chosen is None:
            return
        if chosen.args:
            self._put("dataset_name", self._value(chosen.args[0]), chosen)
        if len(chosen.args) > 1:
            self._put("dataset_config", self._value(chosen.args[1]), chosen)
        for keyword in chosen.keywords:
            key = {"path": "dataset_name", "name": "dataset_config", "split": "dataset_train_split"}.get(str(keyword.arg))
            if key is not None:
                self._put(key, self._value(keyword.value), keyword.value)
            elif keyword.arg == "data_files":
                files = self._value(keyword.value)
                self._put("data_files", files.get("train", files) if isinstance(files, dict) else files, keyword.value)


def _plain(value: Any) -> Any:
    """A literal as JSON could hold it; a tuple is a list.

    Raises:
        TypeError: it is something else, such as a set or bytes.
    """
    match value:
        case str() | int() | float() | None:
            return value
        case list() | tuple():
            return [_plain(one) for one in value]
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _plain(one) for key, one in value.items()}
    raise TypeError(type(value).__name__)


def _name(function: ast.expr) -> str:
    """`FastLanguageModel.get_peft_model` -> get_peft_model."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _outer(function: ast.expr) -> str:
    """`FastLanguageModel.get_peft_model` -> FastLanguageModel."""
    return _name(function.value) if isinstance(function, ast.Attribute) else ""
