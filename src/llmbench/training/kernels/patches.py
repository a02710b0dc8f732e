"""The register of what training borrows from inside TRL, transformers, PEFT, bitsandbytes and PyTorch. See `llmbench.borrowed`.

Nothing else in this room or above it may replace, override, call or read a private name of another package.
"""

from __future__ import annotations

from functools import partial

from llmbench.borrowed import Patch

__all__ = ["METHODS", "ROWS", "TRAINER"]

_trl = partial(Patch, package="trl", versions=">=1.16,<1.17")
_transformers = partial(Patch, package="transformers", versions=">=5.19,<5.20")
_peft = partial(Patch, package="peft", versions=">=0.21,<0.22")
_torch = partial(Patch, package="torch", versions="==2.13.0")
_bitsandbytes = partial(Patch, package="bitsandbytes", versions=">=0.50,<0.51")

_deepspeed = partial(Patch, package="deepspeed", versions=">=0.19.8,<0.20")

_PICKLE = "checkpoints would be pickles, and not resumed from"

LEARNED_ONLY = _trl(
    "trl.trainer.utils", "_use_triton", "(device)", "replaced",
    "computes logits for trained positions only, which TRL does on CUDA only", "logits for every position, which is slower "
    "on a CPU",
)  # fmt: skip
LOG_PROBS = _trl(
    "trl.trainer.utils", "_ChunkedLogProbFunction",
    "(ctx, hidden, weight, bias, targets, temperature, chunk_size, final_logit_softcapping=..., logit_scale=..., outputs=...)",
    "replaced", "log-probabilities, their gradient and what is measured, in fewer passes over fewer logits",
    "TRL's own kernel, which is slower and takes more memory",
)  # fmt: skip
FUSED_HEAD = _trl(
    "trl.trainer.utils", "add_fused_lm_head", "(model, temperature=..., cast_lm_head_to_fp32=..., outputs=...)", "called",
    "a loss without logits for every position", "the loss is computed from all logits",
)  # fmt: skip
HAS_VLLM = _trl(
    "trl.import_utils", "is_vllm_available", "(min_version=...)", "replaced",
    "keeps TRL from importing vLLM for GRPO where no answer is drawn with it", "vLLM is imported wherever it is installed",
)  # fmt: skip
REFERENCE = _trl(
    "trl.trainer.grpo_trainer", "create_model_from_path", "(model_id, architecture=..., **kwargs)", "replaced",
    "gives GRPO the loaded model's own copy as reference", "the reference is not the model that training starts from",
    required=True,
)  # fmt: skip
DRAWN_BY = _trl(
    "trl.trainer.grpo_trainer", "VLLMGeneration", "class", "replaced",
    "has GRPO's answers drawn by an engine outside the trainer's process", "no answers from vLLM without CUDA", required=True,
)  # fmt: skip
TELEMETRY = _trl(
    "trl.trainer.base_trainer:_BaseTrainer", "_send_telemetry", "(self)", "overridden",
    "sends no telemetry", "TRL would report each training to its authors", required=True,
)  # fmt: skip
_PREPARED = {
    name: _trl(
        f"trl.trainer.{name}_trainer:{kind}", "_prepare_dataset", "(self, dataset, processing_class, args, dataset_name)",
        "overridden", "rows stay as they were written, counted and cut", "TRL would tokenise the rows again", required=True,
    )
    for name, kind in (("dpo", "DPOTrainer"), ("kto", "KTOTrainer"), ("reward", "RewardTrainer"))
}  # fmt: skip
_MEASURED = {
    name: _trl(
        owner, held, "attribute", "replaced", "figures of several processes are means over the batches of all",
        "figures of several processes would be those of one", required=True,
    )
    for name, owner, held in (
        ("dpo", "trl.trainer.dpo_trainer:DPOTrainer", "_metrics"),
        ("kto", "trl.trainer.kto_trainer:KTOTrainer", "_metrics"),
        ("reward", "trl.trainer.reward_trainer:RewardTrainer", "_metrics"),
        ("orpo", "trl.experimental.orpo.orpo_trainer:ORPOTrainer", "_stored_metrics"),
    )
}  # fmt: skip
ORPO_ROW = _trl(
    "trl.experimental.orpo.orpo_trainer:ORPOTrainer", "tokenize_row", "(self, feature, model=...)", "overridden",
    "rows that are tokenised already", "TRL would tokenise the rows again", required=True,
)  # fmt: skip
TOKENS = _transformers(
    "transformers.trainer:Trainer", "_track_num_input_tokens", "(self, inputs)", "overridden",
    "counts the tokens of both answers of a pair, and none of a turn without rows", "the tokens of a run cannot be counted",
    required=True,
)  # fmt: skip
ORPO_FORWARD = _trl(
    "trl.experimental.orpo.orpo_trainer:ORPOTrainer", "concatenated_forward", "(self, model, batch)", "overridden",
    "scores the positions that count in chunks", "the logits of every position are kept, in several copies",
)  # fmt: skip
COMPILATIONS = _torch(
    "torch._dynamo.config", "recompile_limit", "int", "replaced",
    "training, evaluation and a short last batch have graphs of their own", "some graphs run uncompiled, which is slower",
)  # fmt: skip
LORA_FORWARD = _peft(
    "peft.tuners.lora.layer:Linear", "forward", "(self, x, *args, **kwargs)", "replaced",
    "LoRA added in place, on each layer of a model", "PEFT's own forward, with more passes over memory",
)  # fmt: skip
LITERAL_NAMES = _peft(
    "peft.utils.transformers_weight_conversion", "convert_peft_config_for_transformers", "(peft_config, model, conversions)",
    "replaced", "matches the names in a recipe to modules", "an adapter would be on modules that the recipe does not name",
    required=True,
)  # fmt: skip
ATTENTION = _transformers(
    "transformers.configuration_utils:PreTrainedConfig", "_attn_implementation", "property", "read",
    "which attention a model has, and giving it back", "rows cannot be packed",
)  # fmt: skip

SHARED_MEMORY = _deepspeed(
    "deepspeed.comm.torch", "build_shm_op", "()", "replaced",
    "leaves out a kernel that is compiled for minutes on a CPU, and for inference alone",
    "each first start compiles for minutes, and one that is killed leaves a lock that later ones wait for", required=True,
)  # fmt: skip

TRAINER = (
    TELEMETRY,
    *(
        _transformers("transformers.trainer:Trainer", name, signature, "overridden", purpose, without, required=True)
        for name, signature, purpose, without in (
            (
                "_save_checkpoint", "(self, model, trial)", "writes checkpoints completely or not at all",
                "a kill would leave half a checkpoint",
            ),
            ("_save_optimizer_and_scheduler", "(self, output_dir)", "optimizer and scheduler without pickle", _PICKLE),
            ("_load_optimizer_and_scheduler", "(self, checkpoint)", "reads them back", _PICKLE),
            ("_save_rng_state", "(self, output_dir)", "random numbers and the running loss without pickle", _PICKLE),
            ("_load_rng_state", "(self, checkpoint)", "reads them back", _PICKLE),
            ("_save_scaler", "(self, output_dir)", "the gradient scaler without pickle", _PICKLE),
            ("_load_scaler", "(self, checkpoint)", "reads them back", _PICKLE),
            (
                "_save", "(self, output_dir=..., state_dict=...)", "a checkpoint holds the trained adapter alone",
                "the reference would be resumed as the adapter",
            ),
            (
                "_evaluate", "(self, trial, ignore_keys_for_eval, skip_scheduler=...)",
                "evaluates without side effects, with the recipe's questions", "an evaluation would change the training",
            ),
            (
                "_determine_best_metric", "(self, metrics, trial)", "the best step, and when to stop early",
                "the best step would not be kept",
            ),
            (
                "_wrap_model", "(self, model, training=..., dataloader=...)", "several processes train by the chosen strategy",
                "accelerate would choose one by device and environment",
            ),
            (
                "_get_grad_norm", "(self, model, grad_norm=...)", "stops training at a step that gives NaN or infinity",
                "a NaN step would be taken",
            ),
        )
    ),
)  # fmt: skip
"""What every trainer overrides; `prepare` makes sure of these."""

METHODS: dict[str, tuple[Patch, ...]] = {
    **{name: (row, TOKENS, _MEASURED[name]) for name, row in _PREPARED.items()},
    "orpo": (ORPO_ROW, TOKENS, ORPO_FORWARD, _MEASURED["orpo"]),
}
"""What the trainer of one method overrides besides."""

_INNER = "transformers.trainer:Trainer"
_CALLED = (
    _transformers(_INNER, "_load_from_checkpoint", "(self, resume_from_checkpoint, model=...)", "called",
                  "loads the best step's weights", "load_best_model_at_end fails"),
    _transformers(_INNER, "_get_learning_rate", "(self)", "called", "the rate of a step", "the rate is not shown"),
    _transformers(_INNER, "_prepare_inputs", "(self, inputs)", "called", "one batch on the device, for a trial step",
                  "check --step and selftest fail"),
    _transformers(_INNER, "_tr_loss", "attribute", "read", "the loss since the last log step, in a checkpoint",
                  "the first loss after a resume is wrong"),
    _transformers(_INNER, "_globalstep_last_logged", "attribute", "read", "the same", "the same"),
    _transformers("transformers.training_args:TrainingArguments", "_n_gpu", "attribute", "replaced",
                  "one process trains on one GPU", "several visible GPUs train by DataParallel"),
    _transformers("transformers.modeling_utils:PreTrainedModel", "_is_stateful", "bool", "read",
                  "which models are stateful", "rows are padded"),
    _transformers("transformers.modeling_utils:PreTrainedModel", "_supports_attention_backend", "bool", "read",
                  "whose attention can be replaced", "rows are padded"),
    _transformers("transformers.modeling_utils:PreTrainedModel", "_supports_sdpa", "bool", "read", "the same",
                  "rows are padded"),
    _transformers("transformers.core_model_loading", "_weight_conversions", "attribute", "replaced",
                  "a dequantised model is written as an ordinary one", "a merge onto dequantised weights cannot be saved"),
    _transformers("transformers.masking_utils", "sdpa_mask",
                  "(batch_size, q_length, kv_length, q_offset=..., kv_offset=..., mask_function=..., attention_mask=..., "
                  "local_size=..., allow_is_causal_skip=..., allow_is_bidirectional_skip=..., use_vmap=..., device=..., "
                  "**kwargs)",
                  "called", "masks padded input like sdpa", "rows cannot be packed"),
    _transformers("transformers.integrations.sdpa_attention", "sdpa_attention_forward",
                  "(module, query, key, value, attention_mask, dropout=..., scaling=..., is_causal=..., position_bias=..., "
                  "cache=..., **kwargs)", "called", "attends to padded input like sdpa", "rows cannot be packed"),
    _transformers("transformers.modeling_layers", "GradientCheckpointingLayer", "class", "read", "which modules are layers",
                  "layers are not compiled"),
    _trl("trl.trainer.sft_trainer:SFTTrainer", "_metrics", "attribute", "replaced", "logs the experts' balance",
         "mixtures of experts cannot be trained"),
    _trl("trl.trainer.grpo_trainer:GRPOTrainer", "_metrics", "attribute", "read", "whether any answer was rewarded",
         "a run that learned nothing is not reported"),
    _trl("trl.import_utils", "TRLExperimentalWarning", "class", "read", "silences a known notice", "a notice at each start"),
    _peft("peft.tuners.tuners_utils", "BaseTunerLayer", "class", "read", "which modules have an adapter",
          "names of a recipe are not checked"),
    _peft("peft.utils.other", "ModulesToSaveWrapper", "class", "read", "which modules are trained whole",
          "names of a recipe are not checked"),
    _peft("peft.utils.other", "TrainableTokensWrapper", "class", "read", "gives a head of trained rows its bias",
          "new tokens cannot be trained"),
    _peft("peft.utils.integrations", "dequantize_module_weight", "(module)", "called", "dequantises weights",
          "no merge onto dequantised weights"),
    _bitsandbytes("bitsandbytes.nn.modules:Linear4bit", "support_avx512bf16_for_cpu", "attribute", "replaced",
                  "keeps 4-bit weights from being packed for inference", "layers pass no gradient, which the test step "
                  "reports"),
    _deepspeed("deepspeed.runtime.zero.stage_1_and_2:DeepSpeedZeroOptimizer", "_lazy_init_hp_params_optimizer_state", "(self)",
               "called", "takes up the optimizer's state of a checkpoint", "no run is resumed with deepspeed"),
    _torch("torch._dynamo.exc", "TorchDynamoException", "class", "read", "one line where a model cannot be compiled",
           "a traceback"),
    _torch("torch._inductor.exc", "InductorError", "class", "read", "the same", "a traceback"),
    _torch("torch.cpu", "_is_amx_tile_supported", "()", "called", "names the instructions that multiply bfloat16",
           "no choice can be explained"),
)  # fmt: skip

ROWS = (
    LEARNED_ONLY, LOG_PROBS, FUSED_HEAD, HAS_VLLM, REFERENCE, DRAWN_BY, *TRAINER,
    *dict.fromkeys(row for rows in METHODS.values() for row in rows), COMPILATIONS, LORA_FORWARD, LITERAL_NAMES, ATTENTION,
    SHARED_MEMORY, *_CALLED,
)  # fmt: skip
"""All of them."""
