"""Whose configuration a file is, by keys that only one trainer has."""

from __future__ import annotations

from llmbench.errors import RecipeError
from llmbench.importing.foreign import Foreign

__all__ = ["WORDS", "peer_of"]

_CHOICES = "llamafactory, axolotl, trl, unsloth or torchtune"
_KEYS = {
    "llamafactory": {
        "stage", "finetuning_type", "cutoff_len", "lora_target", "lora_rank", "dataset_dir", "preprocessing_num_workers",
        "template",
        "quantization_bit", "export_dir", "infer_backend", "pref_beta", "pref_loss", "overwrite_cache", "max_samples",
        "val_size",
    },
    "axolotl": {
        "base_model", "micro_batch_size", "sequence_len", "adapter", "datasets", "sample_packing", "val_set_size",
        "num_epochs", "lora_target_linear", "dataset_prepared_path", "optimizer", "lr_scheduler", "train_on_inputs",
        "saves_per_epoch", "evals_per_epoch", "pretraining_dataset", "rl", "wandb_watch", "pad_to_sequence_len",
    },
    "trl": {
        "dataset_name", "dataset_config", "use_peft", "lora_target_modules", "dataset_train_split", "dataset_test_split",
        "assistant_only_loss", "completion_only_loss", "reward_funcs", "use_bnb_nested_quant", "accelerate_config",
        "dataset_text_field", "desirable_weight", "undesirable_weight", "bnb_4bit_quant_type", "teacher_model_name_or_path",
        "max_completion_length", "loss_type", "eval_strategy", "max_length", "packing_strategy", "datasets",
    },
    "unsloth": {
        "max_seq_length", "training_type", "random_seed", "train_on_completions", "finetune_vision_layers", "use_loftq",
        "lora_r", "local_dataset", "format_type", "random_state", "model_name",
    },
}  # fmt: skip
"""Keys of each, at the top or in a section; some stand in several, and the most matches win."""
_OWN = {
    "llamafactory": {"stage", "finetuning_type", "cutoff_len"}, "axolotl": {"base_model", "micro_batch_size", "sequence_len"},
    "trl": {"dataset_name", "use_peft", "reward_funcs", "teacher_model_name_or_path"},
    "unsloth": {"training_type", "random_seed", "train_on_completions", "local_dataset"},
}  # fmt: skip
"""Keys that decide alone."""
WORDS = {"llamafactory-cli": "llamafactory", "trl": "trl", "unsloth": "unsloth", "axolotl": "axolotl", "tune": "torchtune"}
"""The program of a command line -> whose it is."""


def peer_of(given: Foreign, named: str | None) -> str:
    """Whose file it is.

    Raises:
        RecipeError: it could be of several trainers, of none, or is a recipe of llmbench already.
    """
    if named is not None:
        return named
    if given.command is not None:
        word = given.command.split()[0]
        return WORDS.get(word, word)
    keys = set(given.values)
    inner = {key for value in given.values.values() if isinstance(value, dict) for key in value}
    if any(isinstance(value, dict) and "_component_" in value for value in given.values.values()):
        return "torchtune"
    if {"name", "data"} <= keys and isinstance(given.values["data"], dict) and "train" in given.values["data"]:
        raise RecipeError(f"{given.path}: is a recipe of llmbench already. Run: llmbench check {given.path}")
    certain = [peer for peer, own in _OWN.items() if own & (keys | inner if peer == "unsloth" else keys)]
    if len(certain) == 1:
        return certain[0]
    score = {peer: len(own & (keys | inner if peer == "unsloth" else keys)) for peer, own in _KEYS.items()}
    best = sorted(score, key=lambda peer: -score[peer])
    if score[best[0]] >= 2 and score[best[0]] > score[best[1]]:
        return best[0]
    close = [peer for peer in best if score[peer] == score[best[0]] and score[peer]]
    if len(close) > 1:
        raise RecipeError(f"{given.path}: could be for {' or '.join(close)}. Say which: --from {close[0]}")
    raise RecipeError(f"{given.path}: not a configuration that llmbench knows. Name its trainer with --from: {_CHOICES}")
