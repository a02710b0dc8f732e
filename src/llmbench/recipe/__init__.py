"""The typed documents, and `load`, the only reader of YAML.

A fault in a document is one line with file, line number, dotted place and, where one is near, the key that was meant.
"""

from __future__ import annotations

from llmbench.recipe import metric_settings
from llmbench.recipe.adapter import (
    EvaSpec,
    FreezeSpec,
    IA3Spec,
    LoftQSpec,
    LoraSpec,
    OFTSpec,
    PromptTuningSpec,
    QuantizationSpec,
    TokenizerSpec,
    VeraSpec,
)
from llmbench.recipe.compare import ABSTENTION, CompareRecipe, EndpointSpec, QuestionSource, StatisticsSpec
from llmbench.recipe.data import DataSource, DataSpec, Format
from llmbench.recipe.distributed import DistributedSpec
from llmbench.recipe.evaluation import EvaluationSpec
from llmbench.recipe.experiment import (
    PLACEHOLDER,
    AskedSampling,
    ComparedVariant,
    FactorsSpec,
    PassagesSpec,
    PromptSpec,
)
from llmbench.recipe.fields import Document
from llmbench.recipe.guardrails import RAILS
from llmbench.recipe.judge import JudgeModel, JudgeSpec
from llmbench.recipe.load import load, load_any, load_text
from llmbench.recipe.methods import DistillationSpec, DpoSpec, GrpoSpec, KtoSpec, Method, OrpoSpec, RewardSpec, TeacherSpec
from llmbench.recipe.metrics import MetricSpec
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.observing import AccessLogSpec, CaptureSpec, TracesSpec
from llmbench.recipe.optimization import TrainingSpec
from llmbench.recipe.preregistration import ExclusionSpec, Margin, PreregistrationSpec
from llmbench.recipe.rag import (
    STDIN,
    ChunkingSpec,
    ColumnsSpec,
    ContextSpec,
    EmbedderSpec,
    ExpandSpec,
    MmrSpec,
    RagRecipe,
    RerankSpec,
    Scalar,
    SearchSpec,
    SourceSpec,
    Stage,
)
from llmbench.recipe.rewards import RewardFunction
from llmbench.recipe.serve import MAX_STOPS, VLLM_ALONE, EngineSpec, GatewaySpec, Sampling, ServeRecipe, Variant
from llmbench.recipe.sweep import ConfirmSpec, DimensionSpec, SweepRecipe
from llmbench.recipe.tracking import Tracker, TrackingSpec
from llmbench.recipe.traffic import Guardrails, RolloutSpec, RouteSpec, ShadowSpec, Sticky
from llmbench.recipe.train import TrainRecipe
from llmbench.recipe.vllm_options import vllm_option

__all__ = [
    "ABSTENTION",
    "MAX_STOPS",
    "PLACEHOLDER",
    "RAILS",
    "STDIN",
    "VLLM_ALONE",
    "AccessLogSpec",
    "AskedSampling",
    "CaptureSpec",
    "ChunkingSpec",
    "ColumnsSpec",
    "CompareRecipe",
    "ComparedVariant",
    "ConfirmSpec",
    "ContextSpec",
    "DataSource",
    "DataSpec",
    "DimensionSpec",
    "DistillationSpec",
    "DistributedSpec",
    "Document",
    "DpoSpec",
    "EmbedderSpec",
    "EndpointSpec",
    "EngineSpec",
    "EvaSpec",
    "EvaluationSpec",
    "ExclusionSpec",
    "ExpandSpec",
    "FactorsSpec",
    "Format",
    "FreezeSpec",
    "GatewaySpec",
    "GrpoSpec",
    "Guardrails",
    "IA3Spec",
    "JudgeModel",
    "JudgeSpec",
    "KtoSpec",
    "LoftQSpec",
    "LoraSpec",
    "Margin",
    "Method",
    "MetricSpec",
    "MmrSpec",
    "ModelSpec",
    "OFTSpec",
    "OrpoSpec",
    "PassagesSpec",
    "PreregistrationSpec",
    "PromptSpec",
    "PromptTuningSpec",
    "QuantizationSpec",
    "QuestionSource",
    "RagRecipe",
    "RerankSpec",
    "RewardFunction",
    "RewardSpec",
    "RolloutSpec",
    "RouteSpec",
    "Sampling",
    "Scalar",
    "SearchSpec",
    "ServeRecipe",
    "ShadowSpec",
    "SourceSpec",
    "Stage",
    "StatisticsSpec",
    "Sticky",
    "SweepRecipe",
    "TeacherSpec",
    "TokenizerSpec",
    "TracesSpec",
    "Tracker",
    "TrackingSpec",
    "TrainRecipe",
    "TrainingSpec",
    "Variant",
    "VeraSpec",
    "combination",
    "load",
    "load_any",
    "load_text",
    "metric_settings",
    "resolution",
    "schema",
    "servability",
    "vllm_option",
    "yaml_text",
]
