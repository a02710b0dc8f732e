"""The typed documents, and `load`, the only reader of YAML.

A fault in a document is one line with file, line number, dotted place and, where one is near, the key that was meant.
"""

from __future__ import annotations

from llmbench.recipe.adapter import LoraSpec, QuantizationSpec
from llmbench.recipe.compare import CompareRecipe, EndpointSpec, QuestionSource, StatisticsSpec
from llmbench.recipe.data import DataSource, DataSpec
from llmbench.recipe.evaluation import EvaluationSpec
from llmbench.recipe.fields import Document
from llmbench.recipe.load import load, load_any
from llmbench.recipe.methods import DistillationSpec, DpoSpec, GrpoSpec, KtoSpec, OrpoSpec, RewardSpec, TeacherSpec
from llmbench.recipe.model import ModelSpec
from llmbench.recipe.optimization import TrainingSpec
from llmbench.recipe.rag import (
    ChunkingSpec,
    ColumnsSpec,
    ContextSpec,
    EmbedderSpec,
    ExpandSpec,
    MmrSpec,
    RagRecipe,
    RerankSpec,
    SearchSpec,
    SourceSpec,
    Stage,
)
from llmbench.recipe.rewards import RewardFunction
from llmbench.recipe.serve import MAX_STOPS, EngineSpec, GatewaySpec, Sampling, ServeRecipe, Variant
from llmbench.recipe.train import TrainRecipe

__all__ = [
    "MAX_STOPS",
    "ChunkingSpec",
    "ColumnsSpec",
    "CompareRecipe",
    "ContextSpec",
    "DataSource",
    "DataSpec",
    "DistillationSpec",
    "Document",
    "DpoSpec",
    "EmbedderSpec",
    "EndpointSpec",
    "EngineSpec",
    "EvaluationSpec",
    "ExpandSpec",
    "GatewaySpec",
    "GrpoSpec",
    "KtoSpec",
    "LoraSpec",
    "MmrSpec",
    "ModelSpec",
    "OrpoSpec",
    "QuantizationSpec",
    "QuestionSource",
    "RagRecipe",
    "RerankSpec",
    "RewardFunction",
    "RewardSpec",
    "Sampling",
    "SearchSpec",
    "ServeRecipe",
    "SourceSpec",
    "Stage",
    "StatisticsSpec",
    "TeacherSpec",
    "TrainRecipe",
    "TrainingSpec",
    "Variant",
    "load",
    "load_any",
]
