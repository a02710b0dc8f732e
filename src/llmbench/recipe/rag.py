"""The RAG pipeline: `llmbench index`, `search`, `ask`, `evaluate rag`, and every variant that names one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from llmbench.recipe.fields import Document, ExistingPath, Fraction, Name, Reference, Section, existing

__all__ = [
    "ChunkingSpec",
    "ColumnsSpec",
    "ContextSpec",
    "EmbedderSpec",
    "ExpandSpec",
    "MmrSpec",
    "RagRecipe",
    "RerankSpec",
    "Scalar",
    "SearchSpec",
    "SourceSpec",
    "Stage",
]

Stage = Literal["dense", "terms", "fused", "rerank"]
"""Where a score comes from: cosine similarity, BM25, their fusion, a reranker's own scale. Higher is always better."""

Scalar = str | int | float | bool
"""What a field of a document's metadata may hold."""


class ColumnsSpec(Section):
    """Which columns of JSONL, CSV and Parquet rows are a document, where every row is one.

    The names that BEIR, AutoRAG and datasets use are found by themselves: id or _id, text or contents, title.
    """

    id: str | None = None
    text: str | list[str] | None = None
    """One column, or several that are joined by line ends."""
    title: str | None = None
    metadata: list[str] | None = None
    """Columns to filter by; null takes every other column that holds plain values."""


STDIN = Path("-")
"""The path that stands for standard input."""
_ROWS = ("jsonl", "ndjson", "json", "csv", "tsv", "parquet")


def _place(value: Any, info: ValidationInfo) -> Any:
    """A path that is there, or standard input."""
    return STDIN if str(value) == "-" else existing(value, info)


Format = Literal[
    "txt", "md", "html", "pdf", "docx", "pptx", "xlsx", "xls", "ods", "odt", "odp", "epub", "rtf", "eml", "mbox", "msg", "doc",
    "csv", "tsv", "json", "jsonl", "ndjson", "parquet", "ipynb", "xml", "adoc", "rst", "org", "tex", "zip", "ppt", "ics", "vcf",
]  # fmt: skip
"""How a file is read, as the end of a file's name."""


class SourceSpec(Section):
    """Documents in one place, with what to take of them."""

    path: Annotated[Path, BeforeValidator(_place)]
    """A file or a folder; `-` is standard input, which `llmbench index` reads and nothing else does."""
    format: Format | None = None
    """How the files of this place are read, as the end of a file's name: `txt` reads all of them as text. null: a file is what
    its name and its first bytes say."""
    formats: dict[str, Format] = {}
    """The same by the ending of the name: `{".typ": txt, ".dump": jsonl}`; it wins over `format`."""
    include: list[str] = []
    """Glob patterns of what to take, such as `**/*.md`; empty takes everything that can be read."""
    exclude: list[str] = []
    """Glob patterns of what to leave out, as in a .gitignore."""
    gitignore: bool = False
    """Also leave out what .gitignore files in the folder name."""
    columns: ColumnsSpec | None = None
    """Set it to take every row of JSONL, CSV and Parquet files as a document."""
    password_env: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] | None = None
    """The environment variable that holds the password of this place's encrypted files; the password itself is kept nowhere."""
    metadata: dict[str, Scalar] = {}
    """Fields given to every document of this place, to filter by."""

    @model_validator(mode="after")
    def _fields_are_free(self) -> Self:
        taken = sorted({"source", "title", "kind"} & self.metadata.keys())
        if taken:
            raise ValueError(f"metadata.{taken[0]} is a field that every document already has. Choose another name")
        return self

    @field_validator("formats", mode="before")
    @classmethod
    def _with_dots(cls, value: Any) -> Any:
        """Endings are written with their dot or without, and compared in lower case."""
        if not isinstance(value, dict):
            return value
        return {f".{str(ending).lower().lstrip('*').lstrip('.')}": format for ending, format in value.items()}

    @model_validator(mode="after")
    def _fits_standard_input(self) -> Self:
        if self.path != STDIN:
            return self
        if self.formats:
            raise ValueError("formats go by file endings, and standard input (-) has none. Set format")
        if self.include or self.exclude or self.gitignore:
            raise ValueError("include, exclude and gitignore select files, and standard input (-) is not one")
        if self.columns is not None and self.format not in _ROWS:
            raise ValueError(f"columns on standard input (-) need its format: one of {', '.join(_ROWS)}")
        return self


def _long_form(value: Any) -> Any:
    """A path alone is a place of which everything is taken."""
    return {"path": value} if isinstance(value, str | Path) else value


def _listed(value: Any) -> Any:
    """One place is a list of one."""
    return [value] if isinstance(value, str | Path | dict) else value


class ChunkingSpec(Section):
    """How documents are cut. Lengths are the embedder's own tokens, so that nothing is cut off when it reads them."""

    method: Literal["tokens", "sentences", "headings", "code", "document", "auto"] = "tokens"
    """`tokens` fills passages up to the border of a paragraph or sentence; `sentences` takes so many at a time; `headings`
    makes one of each section; `code` cuts source along its syntax tree; `document` leaves documents whole; `auto` chooses
    by the kind of file."""
    max_tokens: Annotated[int, Field(gt=7)] = 200
    overlap: Annotated[int, Field(ge=0)] = 20
    sentences: Annotated[int, Field(gt=0)] = 5
    """How many sentences a passage has where `method` is `sentences`."""
    parent_tokens: Annotated[int, Field(gt=0)] | None = None
    """Match small, hand on large: the model is given the stretch of so many tokens around a passage."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.overlap >= self.max_tokens:
            raise ValueError(f"overlap ({self.overlap}) must be smaller than max_tokens ({self.max_tokens})")
        if self.parent_tokens is not None and self.parent_tokens < self.max_tokens:
            raise ValueError(f"parent_tokens ({self.parent_tokens}) must not be smaller than max_tokens ({self.max_tokens})")
        return self


class EmbedderSpec(Section):
    """A sentence-transformers model: `all-MiniLM-L6-v2` (installed with llmbench), a hub name, or a folder."""

    model_name_or_path: Reference = "all-MiniLM-L6-v2"
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    batch_size: Annotated[int, Field(gt=0)] = 64
    query_prefix: str | None = None
    """Put before each query; null is the model's own prompt for queries, where it has one."""
    document_prefix: str | None = None
    """Put before each passage; null is the model's own prompt for documents, where it has one."""
    max_seq_length: Annotated[int, Field(gt=15)] | None = None
    """The window in tokens; null is the model's own."""
    truncate_dim: Annotated[int, Field(gt=0)] | None = None
    """Keep so many values of each vector, for models trained to allow it (Matryoshka)."""
    backend: Literal["auto", "torch", "onnx", "openvino"] = "auto"
    """What computes the vectors; `auto` takes what a probe of this hardware found fastest at equal quality."""
    precision: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"


class RerankSpec(Section):
    """A second look at the best candidates, by a model that reads query and passage together."""

    model_name_or_path: Reference
    revision: str | None = None
    kind: Literal["cross-encoder", "late-interaction"] = "cross-encoder"
    candidates: Annotated[int, Field(gt=0, le=1000)] = 30
    """How many of the fused candidates it reads."""
    batch_size: Annotated[int, Field(gt=0)] = 32


class MmrSpec(Section):
    """Maximal marginal relevance: passages that say something new before passages that repeat."""

    lambda_mult: Fraction = 0.5
    """1 is relevance alone, 0 is difference alone."""
    fetch_k: Annotated[int, Field(gt=0, le=1000)] = 20
    """How many candidates it chooses among."""


class ExpandSpec(Section):
    """More queries made of one. Off by default: each asks a model, or searches, once more."""

    method: Literal["multi_query", "hyde", "feedback"]
    """`multi_query` has a model word the question anew; `hyde` has it write an answer, which is searched with; `feedback`
    adds the telling words of the first hits to the lexical query and needs no model."""
    count: Annotated[int, Field(gt=0, le=10)] = 3
    """How many questions, answers or hits."""
    base_url: str = "http://127.0.0.1:8000/v1"
    model: str | None = None
    """As the endpoint names it; `multi_query` and `hyde` need one."""
    max_tokens: Annotated[int, Field(gt=0)] = 128

    @model_validator(mode="after")
    def _names_its_model(self) -> Self:
        if self.method != "feedback" and not self.model:
            raise ValueError(f"model is missing: {self.method} needs one")
        return self


class SearchSpec(Section):
    """What a search does, stage by stage: candidates by meaning and by words, fused, reranked, made different, cut."""

    mode: Literal["hybrid", "dense", "terms"] = "hybrid"
    top_k: Annotated[int, Field(gt=0, le=1000)] = 5
    candidates: Annotated[int, Field(gt=0, le=10_000)] = 100
    """How many each of dense and terms hands to the fusion."""
    fusion: Literal["auto", "convex", "rrf"] = "auto"
    """How both lists become one: `convex` weighs their scores on one scale, `rrf` counts ranks alone; `auto` is convex, which
    measured better with and without judged queries."""
    alpha: Fraction | None = None
    """The weight of dense beside terms in convex fusion: 1 is dense alone. Null is what `llmbench evaluate rag --tune` found,
    else 0.6."""
    rrf_k: Annotated[int, Field(gt=0)] = 60
    min_score: Annotated[float, Field(ge=-1, le=1)] | dict[Stage, float] | None = None
    """Hits below are left out: a number is the cosine similarity, a mapping names its stages."""
    filter: dict[str, Any] | None = None
    """What every hit must be, such as `{"kind": "pdf"}` or `{"year": {"$gte": 2024}}`."""
    expand: ExpandSpec | None = None
    rerank: RerankSpec | None = None
    mmr: MmrSpec | None = None
    neighbours: Annotated[int, Field(ge=0, le=10)] = 0
    """Passages before and after a hit that are handed on with it."""
    deduplicate: bool = True
    """Leave out passages whose words are those of a better one."""
    index: Literal["auto", "exact", "hnsw", "ivf"] = "auto"
    """How vectors are searched: `auto` is exact up to 50,000 of them, then the fastest that reaches target_recall."""
    target_recall: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Recall@10 against exact search that an approximate index must reach when it is built."""


class ContextSpec(Section):
    """How passages are put into the prompt."""

    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """The tokens that all passages may take together; null is no bound."""
    tokenizer: ExistingPath | None = None
    """A folder with the served model's tokenizer, which counts them; null counts as the embedder does."""
    order: Literal["score", "document", "stable"] = "score"
    """`score` is best first; `document` as they stand in their documents; `stable` the same passages always in the same
    order, so that vLLM's prefix cache is used again."""


class RagRecipe(Document):
    """Documents, how they are cut, embedded and searched, and the prompt that hands them to a model."""

    name: Name
    """The index's name; its folder is outputs/indexes/NAME."""
    documents: Annotated[
        list[Annotated[SourceSpec, BeforeValidator(_long_form)]],
        BeforeValidator(_listed, json_schema_input_type=list[SourceSpec | str] | SourceSpec | str),
    ] = Field(min_length=1)
    """Files and folders, or mappings that say which of their files to take; `-` is standard input."""
    chunking: ChunkingSpec = ChunkingSpec()
    embedder: EmbedderSpec = EmbedderSpec()
    search: SearchSpec = SearchSpec()
    context: ContextSpec = ContextSpec()
    questions: ExistingPath | None = None
    """Judged questions, for `llmbench evaluate rag`: a llmbench question file, a BEIR folder, or TREC qrels with queries."""
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
    def _standard_input_is_read_once(self) -> Self:
        if sum(place.path == STDIN for place in self.documents) > 1:
            raise ValueError("documents: standard input (-) is listed twice, but can be read only once")
        return self

    @model_validator(mode="after")
    def _prompt_has_its_places(self) -> Self:
        for place in ("{passages}", "{question}"):
            if place not in self.prompt:
                raise ValueError(f"prompt must contain {place}")
        if "{text}" not in self.passage:
            raise ValueError("passage must contain {text}")
        return self
