"""`llmbench train`."""

from __future__ import annotations

import shlex
import shutil
import sys
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import completion, several
from llmbench.cli.arguments import Json, Overrides
from llmbench.cli.runs import clock, evaluated, record
from llmbench.cli.several import Emit, Engine
from llmbench.cli.terminal import print_json
from llmbench.errors import MissingPackage, RunError

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe
    from llmbench.runs import Run
    from llmbench.training import Job
    from llmbench.training.distributed.launch import Nodes


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command("train", epilog="Example: `llmbench train recipes/sft-lora.yaml training.learning_rate=1e-4`")(train)


def train(
    recipe: Annotated[
        Path,
        typer.Argument(
            metavar="RECIPE", help="A training recipe, such as recipes/sft-lora.yaml.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume a stopped run from its last complete checkpoint, or train a finished one for more epochs or steps.",
        ),
    ] = False,
    resume_from_checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="Resume from the checkpoint of this step; later ones are dropped.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run of the same name, its note and tags included.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate everything, take one step and print the plan; keep nothing.")
    ] = False,
    processes: Annotated[
        int,
        typer.Option(min=1, max=1024, metavar="N", help="Processes on this machine that train together: one for each GPU."),
    ] = 1,
    nodes: Annotated[int, typer.Option(min=1, max=4096, metavar="N", help="Machines that train together.")] = 1,
    rendezvous: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="With --nodes: where the machines meet, the same on each."),
    ] = None,
    engine: Annotated[
        Engine, typer.Option(help="Who starts the processes. ray: Ray Train, on the machines of a Ray cluster (RAY_ADDRESS).")
    ] = "torchrun",
    emit: Annotated[
        Emit | None,
        typer.Option(help="Write a batch script for a cluster, NAME.sbatch, and train nothing.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fine-tune a model (LoRA, QLoRA, all parameters), or pre-train one, from a recipe.

    Exit code 0: trained; 2: an error, printed on one line; 130: stopped with Ctrl-C; continue with --resume.
    """
    asked = _Asked(recipe, tuple(overrides or ()), resume, resume_from_checkpoint, overwrite, dry_run, as_json)
    if emit is not None:
        return _emit(asked, processes, nodes)
    with several.reporting():
        _train(asked, several.machines(processes, nodes, rendezvous, engine))


def _emit(asked: _Asked, processes: int, nodes: int) -> None:
    """Writes the batch script."""
    from llmbench import recipe as recipes

    document = recipes.load(asked.recipe, recipes.TrainRecipe, asked.overrides)
    path = several.emitted(document, processes, nodes, asked.words(), overwrite=asked.overwrite)
    if asked.as_json:
        print_json({"script": str(path)})
    else:
        print(f"Script: {path}\nNext: look at its #SBATCH lines, then: sbatch {path}")


@dataclass(frozen=True)
class _Asked:
    """The command line, but for the processes."""

    recipe: Path
    overrides: tuple[str, ...]
    resume: bool
    step: int | None
    overwrite: bool
    dry_run: bool
    as_json: bool

    @property
    def continues(self) -> bool:
        """Whether a run is gone on with."""
        return self.resume or self.step is not None

    def words(self) -> list[str]:
        """It once more, for a process that does the same."""
        flags = {"--resume": self.resume, "--overwrite": self.overwrite, "--json": self.as_json}
        step = [] if self.step is None else ["--resume-from-checkpoint", str(self.step)]
        given = [flag for flag, is_set in flags.items() if is_set]
        return ["train", str(self.recipe), *self.overrides, *given, *step]


def _train(asked: _Asked, where: Nodes | None) -> None:
    """The verb, in a process that was typed or in one of several that it started; `where` is None in those."""
    from llmbench import recipe as recipes
    from llmbench import runs

    document = recipes.load(asked.recipe, recipes.TrainRecipe, asked.overrides)
    if asked.continues and asked.overwrite:
        raise RunError("--resume continues a run, --overwrite replaces it: choose one.")
    _need_packages(document)
    several.check(document, where)
    run = None
    if several.writes() and not asked.dry_run and (where is None or where.nodes == 1):  # else the first process looks
        run = runs.resume(document) if asked.continues else runs.check(document, overwrite=asked.overwrite)
        if asked.continues:
            for change in runs.changes(run, document):
                print(f"Continuing with {change}", file=sys.stderr)
    if where is None or asked.dry_run:
        run = _here(asked, document, run, where)
    else:
        run = several.trained(where, document, asked.words())
    if run is not None and several.speaks():
        _say(asked, document, run)


def _here(asked: _Asked, document: TrainRecipe, run: Run | None, where: Nodes | None) -> Run | None:
    """Trains in this process, or takes its first step; the run, if it is this process that writes one."""
    from llmbench import rollout, runs, training
    from llmbench.recipe.servability import servability

    alone = {"distributed": type(document.distributed)()}
    job = _prepared(document if where is None else document.model_copy(update=alone))  # one process takes the step
    if several.writes() and not asked.as_json:
        print("\n".join(_folded(_plan(job, several.batch(document, where)))))
    if asked.dry_run:
        tried = _first_step(job)
        if asked.as_json:
            print_json({"steps": job.steps, **_counts(job), "servability": servability(document), "first_step": tried})
        else:
            print("\n".join(_folded([f"  tried   {tried}"])))
        return None
    try:
        with rollout.drawing(job) as ready:  # first, so that a run is not replaced by one whose vLLM does not start
            if run is not None and not asked.continues:
                run = runs.create(document, overwrite=asked.overwrite)
            run = several.joined(run, document)
            training.train(ready, run, resume=asked.continues, resume_from_checkpoint=asked.step)
            several.left()
    except KeyboardInterrupt as stop:
        if stop.args:  # all stopped after the same step
            several.left()
        if several.speaks():
            step = run.status.get("step", 0) if run is not None else 0
            again = shlex.join(["llmbench", "train", str(asked.recipe), *asked.overrides, "--resume"])
            print(f"Stopped at step {step}. Continue with: {again}", file=sys.stderr)
        raise
    return run


def _say(asked: _Asked, document: TrainRecipe, run: Run) -> None:
    """The result."""
    from llmbench.recipe.servability import servability

    if asked.as_json:
        print_json(record(run))
    else:
        print("\n".join(_folded(_result(run, served=not servability(document)))))


def _prepared(document: TrainRecipe) -> Job:
    """The loaded model and data, with a word on a terminal while that takes its time."""
    from rich.console import Console

    read = 0
    with Console(stderr=True).status("Loading the libraries") as status:
        from llmbench import training

        def count(rows: int) -> None:
            nonlocal read
            read += rows
            status.update(f"Reading the data: {read:,} rows")

        status.update("Loading the model")
        return training.prepare(document, progress=count)


def _first_step(job: Job) -> str:
    """What the dry run's step showed, with a word on a terminal while it is taken."""
    from rich.console import Console

    from llmbench import training

    with Console(stderr=True).status("Taking one step"):
        return training.first_step(job)


def _folded(lines: list[str]) -> list[str]:
    """Lines folded at words, with an indent, where they go to a terminal; as they are in a pipe."""
    if not sys.stdout.isatty():
        return lines
    width = max(shutil.get_terminal_size().columns, 40)
    indent = " " * 10
    return [
        part
        for line in lines
        for part in textwrap.wrap(
            line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
        )
        or [line]
    ]


def _need_packages(document: TrainRecipe) -> None:
    """Raises MissingPackage for the first package that this recipe needs and that is not installed."""
    from llmbench import tracking

    packages = ["torch", "transformers", "datasets", "trl", "accelerate"]
    packages += ["peft"] * document.adapts + ["bitsandbytes"] * (document.quantization is not None)
    for package in packages:
        if find_spec(package) is None:
            raise MissingPackage("train", package, "train")
    if document.distributed.stage and find_spec("deepspeed") is None:
        raise MissingPackage("train distributed.strategy=deepspeed", "deepspeed", "deepspeed")
    tracking.check(document.tracking)


def _plan(job: Job, batch: str = "") -> list[str]:
    """What is about to be done; `batch` is that of a step in words, if it is not that of the processes there are."""
    from llmbench import training
    from llmbench.estimate import rates
    from llmbench.recipe.servability import servability

    document, rows, loaded = job.recipe, job.rows, job.loaded
    how = _how(document)
    if document.quantization is not None:
        how += f" on {'an' if document.quantization.bits == 8 else 'a'} {document.quantization.words}"
    start = "random weights" if loaded.folder is None else document.model.model_name_or_path
    lines = [
        f"Run {document.name}: {document.method}, {how}",
        f"  model   {start}, {job.parameters:,} parameters, {job.trained_parameters:,} trained",
        f"  data    {_rows(rows.train_report)}",
    ]
    if rows.eval_report is not None:
        lines.append(f"  held out {_rows(rows.eval_report)}")
    lines += training.adapter_lines(job)
    lines += training.method_lines(job)
    lines.append(f"  steps   {job.steps:,} on {loaded.device} in {str(loaded.dtype).removeprefix('torch.')}")
    lines.append(f"  batch   {batch or several.batch(job.recipe, None)}")
    lines += [f"  chosen  {c.name}: {str(c.value).lower()} ({c.reason})" for c in job.choices]
    if job.needs is not None:
        need = job.needs
        lines.append(
            f"  needs   about {clock(need.seconds)} and {need.peak / 2**30:.1f} GiB, mostly {need.dominated_by} (estimated)"
        )
    kept = training.unquantized(document, loaded)
    lines += [f"  warning quantization: {kept}"] if kept else []
    lines += [f"  warning training.learning_rate: {line}" for line in rates.high(document, loaded.folder)]
    lines += [f"  serving {line}" for line in servability(document)]
    return lines + [f"  {line}" for line in _look(job)]


def _look(job: Job) -> list[str]:
    """What the data report warns of."""
    from llmbench.data import terminal
    from llmbench.training import data_report

    report = data_report.report(job)
    return [] if report is None else terminal.brief(report)


def _how(document: TrainRecipe) -> str:
    """What is trained, in a few words: `DoRA r=8`."""
    lora, other = document.lora, document.adapter
    if lora is not None:
        kind = "DoRA" if lora.use_dora else "rsLoRA" if lora.use_rslora else "LoRA"
        start = "" if lora.init_lora_weights is True else f", start {lora.init_lora_weights}"
        return f"{kind} r={lora.r}{start}" + (f", continuing from {document.adapter_name_or_path}" * _goes_on(document))
    if other is not None:
        names = {"oft": "OFT", "vera": "VeRA", "ia3": "IA3", "prompt_tuning": "prompt tuning"}
        return names[other.type] + (f", continuing from {document.adapter_name_or_path}" * _goes_on(document))
    return "all parameters" if document.freeze is None else "all parameters except the frozen ones"


def _goes_on(document: TrainRecipe) -> bool:
    return document.adapter_name_or_path is not None


def _rows(report: Any) -> str:
    learned = f" ({report.trained_tokens:,} trained)" if report.trained_tokens else ""  # prompts alone have none
    text = f"{report.rows:,} rows, {report.tokens:,} tokens{learned}, longest {report.longest:,}"
    if report.dropped:
        text += f"; {report.dropped:,} rows dropped as too long"
    return text + (f"; {report.truncated:,} rows truncated" if report.truncated else "")


def _counts(job: Job) -> dict[str, Any]:
    report = job.rows.train_report
    return {
        "name": job.recipe.name,
        "parameters": job.parameters,
        "trained_parameters": job.trained_parameters,
        "rows": report.rows,
        "tokens": report.tokens,
        "trained_tokens": report.trained_tokens,
        "dropped": report.dropped,
        "device": job.loaded.device,
        "dtype": str(job.loaded.dtype).removeprefix("torch."),
    }


def _result(run: Run, *, served: bool) -> list[str]:
    """Where the result is, and what to do with it."""
    status = run.status
    what, where = ("Adapter", run.adapter) if run.adapter.exists() else ("Model", run.model)
    figures = f"loss {status['loss']:.4f}"
    if status["evaluation"]:
        figures += f" ({evaluated(status['evaluation'])})"
    if status["kept_step"] is not None:
        figures += f", best at step {status['kept_step']} of {status['step']}, which is kept"
    elif status["stopped_early"]:
        figures += f", stopped early at step {status['step']}"
    figures += f", {clock(status['seconds'])}, {status['tokens_per_second']:,.0f} tokens/s"
    figures += _against(status)
    warning = [f"Warning: {status['warning']}"] if status.get("warning") else []
    return [
        *warning,
        f"{what}: {where}",
        f"  {figures}",
        f"  curves: {run.folder / 'loss.svg'}",
        f"Next: {_next(run, served=served)}",
    ]


def _next(run: Run, *, served: bool) -> str:
    """What to do with a result. `served` is whether vLLM loads it."""
    values, adapted = run.recipe, run.adapter.exists()
    if values["method"] == "reward":
        return "use it to judge answers; see docs/guide/methods.md"
    if not adapted:
        return f"llmbench train recipes/sft-lora.yaml model.model_name_or_path={run.model}"
    if served:
        return f"name it in a serving recipe (adapter: {run.name}), then: llmbench serve recipes/serve.yaml"
    if (values["adapter"] or {}).get("type") == "prompt_tuning":
        return "to serve it, train a LoRA instead (vLLM loads no other adapter, and prompt tuning cannot be merged)"
    return f"llmbench merge {run.name}, then serve the merged folder (vLLM cannot load this adapter)"


def _against(status: dict[str, Any]) -> str:
    """The measured memory and time beside what was estimated."""
    peak, said = status["peak_memory"] / 2**30, status.get("estimate")
    if said is None:
        return f", peak {peak:.1f} GiB"
    return f", peak {peak:.1f} GiB (estimated: {clock(said['seconds'])}, {said['peak_memory'] / 2**30:.1f} GiB)"
