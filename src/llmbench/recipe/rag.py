"""The RAG pipeline: `llmbench index`, `search`, `ask`, and every variant that names one."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from llmbench.recipe.fields import Document, ExistingPath, Name, Section

__all__ = ["ChunkingSpec", "EmbedderSpec", "RagRecipe", "SearchSpec"]


class ChunkingSpec(Section):
    """How documents are cut. Lengths are the embedder's own tokens, so that nothing is cut off when it reads them."""

    max_tokens: Annotated[int, Field(gt=7)] = 200
    overlap: Annotated[int, Field(ge=0)] = 20

    @model_validator(mode="after")
    def _overlap_is_smaller(self) -> Self:
        if self.overlap >= self.max_tokens:
            raise ValueError(f"overlap ({self.overlap}) must be smaller than max_tokens ({self.max_tokens})")
        return self


class EmbedderSpec(Section):
    """A sentence-transformers model: `all-MiniLM-L6-v2` (installed with llmbench), a hub name, or a folder."""

    model_name_or_path: str = "all-MiniLM-L6-v2"
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    query_prefix: str = ""
    document_prefix: str = ""


class SearchSpec(Section):
    """What a search hands on."""

    top_k: Annotated[int, Field(gt=0, le=1000)] = 5
    min_score: Annotated[float, Field(ge=-1, le=1)] | None = None
    """Hits below this cosine similarity are left out."""


class RagRecipe(Document):
    """Documents, how they are cut, embedded and searched, and the prompt that hands them to a model."""

    name: Name
    """The index's name; its folder is outputs/indexes/NAME."""
    documents: list[ExistingPath] = Field(min_length=1)
    """Files and folders: Markdown, HTML, text and PDF."""
    chunking: ChunkingSpec = ChunkingSpec()
    embedder: EmbedderSpec = EmbedderSpec()
    search: SearchSpec = SearchSpec()
    system: str | None = None
    """System message put before the conversation."""
    prompt: str = (
        "Answer the question from the passages in one sentence and cite the passage as [n]. "
        "If the passages do not answer it, say that they do not.\n\nPassages:\n{passages}\n\nQuestion: {question}"
    )
    """What the model is asked; `{passages}` and `{question}` are replaced, once each, and nothing else is."""
    passage: str = "[{n}] {text}"
    """One passage in the prompt; `{n}`, `{text}`, `{title}` and `{source}` are replaced."""

    @model_validator(mode="after")
    def _prompt_has_its_places(self) -> Self:
        for place in ("{passages}", "{question}"):
            if place not in self.prompt:
                raise ValueError(f"prompt must contain {place}")
        if "{text}" not in self.passage:
            raise ValueError("passage must contain {text}")
        return self
