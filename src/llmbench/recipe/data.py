"""What a training reads: files, queries, hub data sets or generated lessons, and how long a row may be."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, model_validator

from llmbench import assets
from llmbench.recipe.fields import Fraction, OwnFunction, Positive, Section, Seed, existing, start_of

__all__ = ["DataSource", "DataSpec", "Format", "LessonsSpec"]

Format = Literal["messages", "sharegpt", "alpaca", "prompt_completion", "text", "tokenized"]
_DATABASES = (".db", ".sqlite", ".sqlite3")


class LessonsSpec(Section):
    """Conversations that llmbench writes itself, as its bundled model was taught with (`llmbench.tiny.lessons`)."""

    stage: Literal["words", "short", "long", "cite", "absence"]
    conversations: Positive
    characters: Positive
    """A conversation takes turns until it is this long."""
    seed: Seed = 0


def _rows(value: Any, info: ValidationInfo) -> Any:
    """A file, a folder or a pattern such as `data/*.jsonl`, found as other paths are."""
    if not isinstance(value, (str, Path)) or not any(sign in str(value) for sign in "*?["):
        return existing(value, info)
    start = start_of(value, info)
    if assets.find(str(value), start) is not None:
        return existing(value, info)
    whole = (start / assets.expanded(value)).absolute()
    if any(Path(whole.anchor).glob(str(whole.relative_to(whole.anchor)))):
        return whole
    raise ValueError(f"no file matches {value} (looked in {start})")


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        raise ValueError(f"{url}: only https:// addresses are supported. Download it, and use the file as path")
    if parts.username or parts.password:
        raise ValueError("a URL must not contain a password, since reports show it. Download the file and give its path")


class DataSource(Section):
    """Where training rows come from: files, a query of an SQLite database, a data set of a hub, or generated lessons."""

    path: Annotated[Path, BeforeValidator(_rows)] | None = None
    """JSONL, JSON, CSV, TSV, Parquet, Arrow, text or SQLite: one file, a folder of them, or a pattern (`data/*.jsonl`). All but
    the last three also packed: .gz, .bz2, .xz, .zst."""
    url: str | None = None
    """Instead of a file: the https address of one, which is downloaded once. An address as `path` means the same."""
    query: str | None = None
    """For an SQLite file: the SELECT whose rows are taken. The database is opened read-only."""
    dataset: str | None = None
    """Instead of a file: a data set of the hub, `owner/name`."""
    name: str | None = None
    """The configuration of a hub data set that has several."""
    split: str = "train"
    """The split of a hub data set (`train[:1000]` takes a part), of a folder that `datasets` saved, or of one whose files are
    named by splits (train, validation, test and their short forms)."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""
    lessons: LessonsSpec | None = None
    """Instead of a file: generated conversations."""
    format: Format | None = None
    """What the columns mean. null finds out, and asks where it cannot."""
    columns: dict[str, str] = {}
    """Standard name -> name in the file, such as `{prompt: question, completion: answer}`."""
    formatting: OwnFunction | None = None
    """`path/to/file.py:name`: a function of yours that is given each row (a dict) and returns it in a known format, as
    a dict or a list of several. It is the one place in `data` that runs code."""
    field: str | None = None
    """For a .json file that holds an object: the key under which the list of rows stands."""
    encoding: str = "utf-8"
    """Of text files: utf-8, latin-1, cp1252, utf-16 and so on."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """This source's share of the rows drawn, beside the weights of the other sources; null takes every row once."""
    limit: Positive | None = None
    """Use the first N rows only."""

    @model_validator(mode="before")
    @classmethod
    def _an_address_is_no_path(cls, values: Any) -> Any:
        """`path: https://...` is `url: https://...`."""
        path = values.get("path") if isinstance(values, dict) else None
        if not isinstance(path, str) or not re.match(r"[a-z][a-z0-9+.-]+://", path) or path.startswith(assets.BUNDLED):
            return values
        return {key: value for key, value in values.items() if key != "path"} | {"url": path}

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if sum(origin is not None for origin in (self.path, self.url, self.dataset, self.lessons)) != 1:
            raise ValueError("give one of path, url, dataset and lessons")
        if self.url is not None:
            _check_address(self.url)
        if self.formatting is not None and (self.columns or self.lessons is not None):
            raise ValueError("formatting produces the columns itself: leave out columns and lessons")
        database = self.path is not None and self.path.suffix.lower() in _DATABASES
        if self.query is not None and not database:
            raise ValueError("query is for an SQLite file (.db, .sqlite, .sqlite3)")
        if (self.name is not None or self.revision is not None) and self.dataset is None:
            raise ValueError("name and revision need a hub data set: set `dataset`")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"encoding: Python has no encoding {self.encoding}; try utf-8, latin-1 or cp1252") from None
        return self


class DataSpec(Section):
    """What is trained on, and how long a row may be."""

    train: list[DataSource] = Field(min_length=1)
    eval: list[DataSource] = []
    eval_fraction: Fraction = 0.0
    """Hold out this share of the training rows when `eval` is empty."""
    max_length: Positive = 1024
    """Tokens a row may have."""
    over_length: Literal["error", "drop", "truncate", "split"] = "error"
    """What happens to a longer row. The default asks you to choose; split is for raw text and makes several rows of one."""
    bad_rows: Literal["error", "skip"] = "error"
    """What happens to a row that cannot be used. skip counts it and names it in the report."""
    train_on: Literal["assistant", "last", "all"] = "assistant"
    """Which tokens are learned: every assistant turn, the last one only, or all tokens, the prompt's included."""
    reasoning: Literal["keep", "drop"] = "keep"
    """The thinking of turns (`reasoning_content`, `reasoning`, `thinking`): keep has the chat template write it and learns it,
    drop leaves it out."""
    chat_template: str | None = None
    """In place of the tokenizer's own: the path of a .jinja file, or the template itself."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the chat template, such as `{enable_thinking: false}`."""
    shuffle: bool = True
    """false keeps the file's order, as a curriculum needs."""

    @model_validator(mode="after")
    def _weights_of_all_or_none(self) -> Self:
        for part, sources in (("train", self.train), ("eval", self.eval)):
            if len({source.weight is None for source in sources}) > 1:
                raise ValueError(f"{part}: give a weight to every source or to none")
        return self

    @model_validator(mode="before")
    @classmethod
    def _template_is_found(cls, values: Any, info: ValidationInfo) -> Any:
        """The path of a template, found as other paths are; a text stays as it is."""
        template = values.get("chat_template") if isinstance(values, dict) else None
        if not isinstance(template, str) or "{" in template:
            return values
        start = start_of(template, info)
        found = assets.named(template, start)
        if found is None:
            raise ValueError(f"chat_template: {assets.missing(template, start)}")
        return values | {"chat_template": str(found)}

    def template(self) -> str | None:
        """The text of `chat_template`."""
        if self.chat_template is None or "{" in self.chat_template:
            return self.chat_template
        return Path(self.chat_template).read_text(encoding="utf-8")
