"""`llmbench check`: what a training would read, before it costs hours."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json, Overrides
from llmbench.errors import LlmbenchError, MissingPackage

if TYPE_CHECKING:
    import numpy as np

    from llmbench.data.report import DataReport, Note, Section
    from llmbench.estimate import Estimate, Work
    from llmbench.hardware import Machine
    from llmbench.recipe import DataSpec, ModelSpec, TrainRecipe

__all__ = ["register", "row_lengths"]

_PACKAGES = ("numpy", "pyarrow", "tokenizers", "rensa", "transformers", "datasets")
_GENERAL = "TokenizersBackend"


def register(cli: typer.Typer) -> None:
    """Adds `check`."""
    cli.command(epilog="Examples: `llmbench check recipes/sft-lora.yaml` · for CI: `llmbench check my.yaml --json --strict`")(
        check
    )


def check(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A training recipe, such as recipes/sft-lora.yaml.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    as_json: Json = False,
    rows: Annotated[int, typer.Option(min=0, max=1000, help="Rows to show token by token.")] = 3,
    html: Annotated[Path | None, typer.Option(help="Also write the report to this HTML file.")] = None,
    threshold: Annotated[
        float, typer.Option(min=0.1, max=1.0, help="Jaccard similarity from which rows count as near duplicates.")
    ] = 0.8,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if the report has an error.")] = False,
) -> None:
    """Inspect a recipe's training data: lengths, which tokens are trained, duplicates, secrets.

    Trains nothing and loads no model. Exit code 0: training would start; 1: the report has errors, and --strict is set;
    2: training would refuse the recipe.
    """
    from llmbench import recipe as recipes

    document = recipes.load(recipe, recipes.TrainRecipe, overrides or ())
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise MissingPackage("check", package, "train")
    if html is not None:
        from llmbench import workspace, written
        from llmbench.data import page

        written.check_file(html, page.MARK)
    report = _report(document, rows, threshold)
    if html is not None:
        workspace.write_text(html, page.html(report))
    if as_json:
        from llmbench.data.report import to_json

        print(to_json(report), end="")
    else:
        from rich.console import Console

        from llmbench.data import terminal

        terminal.show(report, Console(highlight=False, markup=False))
        if html is not None:
            print(f"Page: {html}")
    match report.worst:
        case "refused":
            raise typer.Exit(2)
        case "error" if strict:
            raise typer.Exit(1)


def _report(document: TrainRecipe, shown: int, threshold: float) -> DataReport:
    """The report with what else is known of the recipe."""
    from llmbench import scan
    from llmbench.data import kept, vocabulary
    from llmbench.data.report import Note
    from llmbench.estimate import rates
    from llmbench.recipe.servability import servability

    folder = _tokenizer_folder(document.model)
    refused = _model(document)
    with _Progress() as progress:

        def load(spec: DataSpec) -> Any:
            from llmbench import data
            from llmbench.data import preferences

            if document.method not in ("sft", "pretrain", "distillation"):
                tokenizer = _tokenizer(document, folder)
                if spec.chat_template is not None:
                    tokenizer.chat_template = spec.template()
                return preferences.load(
                    document.method,
                    spec,
                    tokenizer,
                    seed=document.training.seed,
                    added=document.tokenizer,
                    stops=stops,
                    progress=progress.count,
                    as_tokens=True,
                )
            return data.load(
                spec,
                lambda: _tokenizer(document, folder),
                seed=document.training.seed,
                folder=folder,
                added=document.tokenizer,
                stops=stops,
                progress=progress.count,
            )

        try:
            base = _model_folder(document.model)
            stops = vocabulary.stops(base)
            report = kept.report(document, folder, load, stops=stops, shown=shown, threshold=threshold)
        except Exception as error:
            if refused is not None:  # a folder that is no model has no tokenizer either
                raise LlmbenchError(refused) from error
            scan.tokenizer(folder)
            raise
    # What other parts say of a recipe, such as its memory and time or whether vLLM will serve it, joins here: notes, sections.
    if refused is not None:
        report = report.adding([Note("refused", "model", refused, "")], [])
    notes, sections = _needs(document, report, base)
    files = None if refused is not None else _base_folder(document.model)
    notes += [Note("warning", "training.learning_rate", line) for line in rates.high(document, files)]
    notes += [Note("warning", "serving", line) for line in servability(document)]
    return report.adding([*_context(report, base), *notes], sections)


def _base_folder(spec: ModelSpec) -> Path | None:
    """The model's files, where they are a folder of this disk or in the hub's cache; None of random weights."""
    if spec.config is not None:
        return None
    folder = _local(spec)
    if folder is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(spec.model_name_or_path, "config.json", revision=spec.revision)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def _local(spec: ModelSpec) -> Path | None:
    """The folder that a recipe names as its model, or the bundled one; None for the name of a hub's."""
    from llmbench import assets

    folder = Path(assets.model_folder(spec.model_name_or_path))
    return folder if folder.is_dir() else None


def _model(document: TrainRecipe) -> str | None:
    """Why training would refuse the model, as far as its files tell without loading them; None where it would not."""
    from llmbench import architecture, scan
    from llmbench.recipe.combination import refusals

    spec, folder = document.model, _base_folder(document.model)
    if folder is None:
        kind = (spec.config or {}).get("model_type")
        return architecture.refusal(spec.config or {}, attn_implementation=spec.attn_implementation) if kind else None
    # Of a hub's model other programs may have left a part in the cache; training downloads the rest.
    whole = _local(document.model) is not None or any(folder.glob("*.safetensors"))
    try:
        config = architecture.read(folder)
        if whole:
            scan.folder(folder, trust_remote_code=spec.trust_remote_code)
    except LlmbenchError as error:
        return str(error)
    attention, judge = spec.attn_implementation, document.method == "reward"
    other = architecture.refusal(config, attn_implementation=attention, judge=judge)
    if other is not None:
        return f"{spec.model_name_or_path}: {other}"
    misfit = (architecture.no_weights(folder) or architecture.misfit(folder, config)) if whole else None
    return misfit or next(iter(refusals(document, config)), None)


def _tokenizer_folder(spec: ModelSpec) -> Path:
    """Where the tokenizer is: in a folder of this disk or of the hub's cache, and only else by asking the hub."""
    if spec.tokenizer is not None:
        return Path(spec.tokenizer)
    folder = _local(spec)
    if folder is not None:
        return folder
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(spec.model_name_or_path, "tokenizer.json", revision=spec.revision)
    except HFValidationError:  # no name that a hub could have; what follows says so
        found = None
    if isinstance(found, str):
        return Path(found).parent
    from llmbench.training.loading.model import local_folder

    return local_folder(spec)


def _model_folder(spec: ModelSpec) -> Path | None:
    """Where the model's configuration is, where that is on this machine."""
    return None if spec.config is not None else _tokenizer_folder(spec.model_copy(update={"tokenizer": None}))


def _tokenizer(document: TrainRecipe, folder: Path) -> Any:
    """The tokenizer as training has it, with the recipe's own tokens."""
    from llmbench.data import vocabulary

    made = _loaded(document.model, folder)
    vocabulary.refuse_empty(made, folder)
    if document.tokenizer is not None:
        vocabulary.add_tokens(made, document.tokenizer)
    return made


def _loaded(spec: ModelSpec, folder: Path) -> Any:
    """The tokenizer of a folder. One that says it is of the general class needs no model's code, nor torch."""
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if settings.keys() & {"tokenizer_class", "auto_map"} == {"tokenizer_class"} and settings["tokenizer_class"] == _GENERAL:
        from transformers.tokenization_utils_tokenizers import TokenizersBackend

        return TokenizersBackend.from_pretrained(str(folder), trust_remote_code=spec.trust_remote_code)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=spec.trust_remote_code)


def _context(report: DataReport, base: Path | None) -> list[Note]:
    """Whether the longest row that is kept fits into the model, whose files are in `base` (None: random weights)."""
    from llmbench.data.report import Note

    if base is None or not (base / "config.json").exists() or report.worst == "refused":
        return []
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    context = (config.get("text_config") or config).get("max_position_embeddings")
    longest = min(report.train.limit.fits_all, report.train.limit.max_length)
    if context is None or longest <= context:
        return []
    text = f"the longest row has {longest:,} tokens, but the model reads at most {context:,}"
    next_ = f"Set data.max_length={context} and data.over_length to drop or truncate."
    return [Note("refused", "data.max_length", text, next_)]


def _needs(document: TrainRecipe, report: DataReport, base: Path | None) -> tuple[list[Note], list[Section]]:
    """Memory, disk and time, and settings that fit where these do not; the model is in `base` (None: random weights)."""
    from llmbench import estimate, hardware
    from llmbench.data.report import Note, Section
    from llmbench.estimate import offers, shapes

    if report.worst == "refused":
        return [], []
    if document.method not in estimate.METHODS:
        return [], [Section("Memory and time", (f"no estimate for method: {document.method}",))]
    try:
        found = shapes.of(base, document.model.config)
    except LlmbenchError as error:
        return [], [Section("Memory and time", (str(error),))]
    there = hardware.machine(document.model.device)
    lengths, learned = _spread(report)
    batches = estimate.work(document, lengths, learned)
    need = estimate.estimate(document, found, batches, there, correction=estimate.corrections(there, method=document.method))
    from llmbench.training.distributed import deal

    free = there.gpu_memory if there.device == "cuda" else there.memory
    kept = estimate.unquantized(document, found)
    notes = (
        [Note("warning", "quantization", kept, "Plan for their memory, or use a base that was published quantised.")]
        if kept
        else []
    )
    if need.peak > free:
        fits = offers.fitting(document, found, lengths, learned, there, limit=free)
        other = "; or ".join(f"{one.overrides} ({one.estimate.peak / 2**30:.1f} GiB)" for one in fits)
        text = f"needs about {need.peak / 2**30:.1f} GiB, mostly for {need.dominated_by}; {free / 2**30:.1f} GiB are free"
        notes.append(Note("error", "memory", text, other or "No nearby setting fits: choose a smaller model."))
    lines = [*_need_lines(need, batches, there), f"Batch   {deal.words(document, 1)}"]
    return notes, [Section("Memory and time (estimated)", tuple(lines))]


def row_lengths(document: TrainRecipe) -> tuple[np.ndarray, float]:
    """Tokens of each row that a recipe trains on, as its report counts them, and the share of tokens that are learned.

    Raises:
        LlmbenchError: training would refuse the recipe.
    """
    report = _report(document, 0, 0.8)
    if report.worst == "refused":
        said = next(note for note in report.notes if note.level == "refused")
        raise LlmbenchError(f"{document.source}: {said.where}: {said.text}. Inspect it: llmbench check {document.source}")
    return _spread(report)


def _spread(report: DataReport) -> tuple[np.ndarray, float]:
    """Row lengths that the report's histogram could have come from, and the share that is learned."""
    from llmbench import estimate

    part = report.train
    longest = min(part.lengths.longest, part.limit.max_length)
    bins = [(one.first, one.last, one.rows) for one in part.lengths.histogram]
    return estimate.spread(part.rows, part.tokens / part.rows, bins, longest), part.trained_tokens / part.tokens


def _need_lines(need: Estimate, batches: Work, there: Machine) -> list[str]:
    where = there.gpu or f"CPU, {there.cores} cores"
    parts = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in need.memory.items())
    hours, rest = divmod(round(need.seconds), 3600)
    learnt = (
        f"corrected from {need.corrected_by} finished runs in this workspace"
        if need.corrected_by
        else "uncorrected: correction needs three finished runs in this workspace"
    )
    lines = [
        f"Memory  {need.peak / 2**30:.1f} GiB on {where} (GiB: {parts})",
        f"Time    {hours}:{rest // 60:02}:{rest % 60:02}, {batches.steps:,} steps at {need.tokens_per_second:,.0f} tokens/s",
        f"        {learnt}",
        f"Disk    {need.disk / 2**20:,.0f} MiB",
    ]
    return lines if there.device == "cpu" else [*lines, f"Host    {need.host / 2**30:.1f} GiB of the machine's memory"]


class _Progress:
    """A word on a terminal while rows are read; nothing in a log, where the report follows in seconds."""

    def __init__(self) -> None:
        from rich.console import Console

        self._rows = 0
        self._status = Console(stderr=True).status("Inspecting the data") if sys.stderr.isatty() else None

    def __enter__(self) -> _Progress:
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def count(self, rows: int) -> None:
        """Called with the number of rows read since the last call."""
        self._rows += rows
        if self._status:
            self._status.update(f"Reading the data: {self._rows:,} rows")
