"""`llmbench train` and `llmbench runs`."""

from __future__ import annotations

import json
import shlex
import sys
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.errors import MissingPackage, RunError
from llmbench.verbs import completion

if TYPE_CHECKING:
    from llmbench.recipe import TrainRecipe
    from llmbench.runs import Run
    from llmbench.training import Job

_BARS = "▁▂▃▄▅▆▇█"
_SHOWN_SAMPLES = 4


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    cli.command("train", epilog="Example: `llmbench train recipes/sft-lora.yaml training.learning_rate=1e-4`")(train)
    cli.command("runs", epilog="Example: `llmbench runs`, then `llmbench runs sft-lora`")(list_runs)


def train(
    recipe: Annotated[
        Path, typer.Argument(help="A training recipe (YAML): your own, or a bundled one.", autocompletion=completion.recipes)
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Values that win over the recipe's.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a stopped run from its last whole checkpoint.")] = False,
    resume_from_checkpoint: Annotated[
        int | None, typer.Option(metavar="STEP", help="Continue from the checkpoint of this step; later ones are dropped.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run of the same name.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Load and check everything, say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Fine-tunes a model (LoRA, QLoRA, all parameters) or pre-trains one, as a recipe says."""
    from llmbench import recipe as recipes
    from llmbench import runs
    from llmbench.recipe.servability import servability

    document = recipes.load(recipe, recipes.TrainRecipe, overrides or ())
    resume = resume or resume_from_checkpoint is not None
    if resume and overwrite:
        raise RunError("--resume continues a run and --overwrite replaces it: choose one.")
    _need_packages(document)
    run = None if dry_run else runs.resume(document) if resume else runs.check(document, overwrite=overwrite)
    if run is not None and resume:
        for change in runs.changes(run, document):
            print(f"Going on with {change}", file=sys.stderr)

    job = _prepared(document)
    if not as_json:
        print("\n".join(_plan(job)))
    if run is None:
        if as_json:
            print(json.dumps({"steps": job.steps, **_counts(job), "servability": servability(document)}))
        return
    from llmbench import training

    if not resume:
        run = runs.create(document, overwrite=overwrite)
    try:
        training.train(document, run, resume=resume, resume_from_checkpoint=resume_from_checkpoint, job=job)
    except KeyboardInterrupt:
        again = shlex.join(["llmbench", "train", str(recipe), *(overrides or ()), "--resume"])
        print(f"Stopped at step {run.status.get('step', 0)}. Continue with: {again}", file=sys.stderr)
        raise
    print(json.dumps(_record(run)) if as_json else "\n".join(_result(run)))


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


def _need_packages(document: TrainRecipe) -> None:
    """Raises MissingPackage for the first package that this recipe needs and that is not installed."""
    packages = ["torch", "transformers", "datasets", "trl", "accelerate", "matplotlib"]
    packages += ["peft"] * document.adapts + ["bitsandbytes"] * (document.quantization is not None)
    for package in packages:
        if find_spec(package) is None:
            raise MissingPackage("train", package, "train")


def _plan(job: Job) -> list[str]:
    """What is about to be done."""
    from llmbench import training
    from llmbench.recipe.servability import servability

    document, rows, loaded = job.recipe, job.rows, job.loaded
    how = _how(document)
    if document.quantization is not None:
        how += f" beside {'an' if document.quantization.bits == 8 else 'a'} {document.quantization.words}"
    start = "random weights" if loaded.folder is None else document.model.model_name_or_path
    lines = [
        f"Run {document.name}: {document.method}, {how}",
        f"  model   {start}, {job.parameters:,} parameters, {job.trained_parameters:,} trained",
        f"  data    {_rows(rows.train_report)}",
    ]
    if rows.eval_report is not None:
        lines.append(f"  held out {_rows(rows.eval_report)}")
    lines += training.method_lines(job)
    lines.append(f"  steps   {job.steps:,} on {loaded.device} in {str(loaded.dtype).removeprefix('torch.')}")
    lines += [f"  chosen  {c.name}: {str(c.value).lower()} ({c.reason})" for c in job.choices]
    if job.needs is not None:
        need = job.needs
        lines.append(
            f"  needs   about {_clock(need.seconds)} and {need.peak / 2**30:.1f} GiB, mostly {need.dominated_by} (estimated)"
        )
    lines += [f"  serving {line}" for line in servability(document)]
    return lines + [f"  {line}" for line in _look(job)]


def _look(job: Job) -> list[str]:
    """What the data report warns of."""
    from llmbench.data import terminal
    from llmbench.training import first_page

    report = first_page.report(job)
    return [] if report is None else terminal.brief(report)


def _how(document: TrainRecipe) -> str:
    """What is trained, in a few words: `DoRA r=8`."""
    lora, other = document.lora, document.adapter
    if lora is not None:
        kind = "DoRA" if lora.use_dora else "rsLoRA" if lora.use_rslora else "LoRA"
        start = "" if lora.init_lora_weights is True else f", start {lora.init_lora_weights}"
        return f"{kind} r={lora.r}{start}" + (f", going on from {document.adapter_name_or_path}" * _goes_on(document))
    if other is not None:
        names = {"oft": "OFT", "vera": "VeRA", "ia3": "IA3", "prompt_tuning": "prompt tuning"}
        return names[other.type] + (f", going on from {document.adapter_name_or_path}" * _goes_on(document))
    return "all parameters" if document.freeze is None else "all parameters but the frozen ones"


def _goes_on(document: TrainRecipe) -> bool:
    return document.adapter_name_or_path is not None


def _rows(report: Any) -> str:
    learned = f" ({report.trained_tokens:,} learned)" if report.trained_tokens else ""  # prompts alone have none
    text = f"{report.rows:,} rows, {report.tokens:,} tokens{learned}, longest {report.longest:,}"
    if report.dropped:
        text += f"; {report.dropped:,} rows dropped as too long"
    return text + (f"; {report.truncated:,} rows cut" if report.truncated else "")


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


def _result(run: Run) -> list[str]:
    """Where the result is, and what to do with it."""
    status = run.status
    what, where = ("Adapter", run.adapter) if run.adapter.exists() else ("Model", run.model)
    figures = f"loss {status['loss']:.4f}"
    if status["evaluation"]:
        figures += f" ({_evaluated(status['evaluation'])})"
    if status["kept_step"] is not None:
        figures += f", best at step {status['kept_step']} of {status['step']}, which is kept"
    elif status["stopped_early"]:
        figures += f", stopped early at step {status['step']}"
    figures += f", {_clock(status['seconds'])}, {status['tokens_per_second']:,.0f} tokens/s"
    following = (
        "judge answers with it; see docs/guide/methods.md"
        if run.recipe["method"] == "reward"
        else f"name it in a serving document (adapter: {run.name}), then: llmbench serve recipes/serve.yaml"
        if run.adapter.exists()
        else f"llmbench train recipes/sft-lora.yaml model.model_name_or_path={where}"
    )
    figures += _against(status)
    return [f"{what}: {where}", f"  {figures}", f"  curves: {run.folder / 'loss.svg'}", f"Next: {following}"]


def _against(status: dict[str, Any]) -> str:
    """The measured memory and time beside what was estimated."""
    peak, said = status["peak_memory"] / 2**30, status.get("estimate")
    if said is None:
        return f", {peak:.1f} GiB at most"
    return f", {peak:.1f} GiB at most (estimated: {_clock(said['seconds'])}, {said['peak_memory'] / 2**30:.1f} GiB)"


def list_runs(
    name: Annotated[str | None, typer.Argument(help="Show this run.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Lists the runs, or shows one: its recipe, figures, curve and files."""
    from llmbench import runs

    if name is not None:
        run = runs.open_run(name)
        record = _record(run)
        if as_json:
            lock = run.lock if (run.folder / "lock.json").exists() else None
            print(json.dumps(record | {"recipe": run.recipe, "lock": lock, "metrics": run.metrics()}))
        else:
            print("\n".join(_details(run, record)))
        return
    records = [_record(run) for run in runs.every()]
    if as_json:
        print(json.dumps(records))
    elif not records:
        print("No runs yet. Make one: llmbench train recipes/sft-lora.yaml")
    else:
        _table(records)


def _record(run: Run) -> dict[str, Any]:
    """A run as a program reads it."""
    from llmbench import checkpoints
    from llmbench.recipe import TrainingSpec
    from llmbench.selection import goal

    status, document = run.status, run.recipe
    rows = [row for row in run.metrics() if "loss" in row]
    judged = goal(TrainingSpec.model_validate(document["training"]))
    best = judged.best(run.metrics()) if judged is not None else None
    result = run.adapter if run.adapter.exists() else run.model if run.model.exists() else None
    base = "random weights" if document["model"]["config"] else document["model"]["model_name_or_path"]
    return {
        "name": run.name,
        "state": status["state"],
        "reason": status["reason"],
        "method": document["method"] + _beside(document),
        "base": base,
        "step": status.get("step", rows[-1]["step"] if rows else 0),
        "steps": status.get("steps"),
        "loss": status.get("loss", rows[-1]["loss"] if rows else None),
        "eval_loss": status.get("eval_loss"),
        "evaluation": status.get("evaluation"),
        "best": None if best is None or judged is None else {"metric": judged.metric, "step": best[0], "value": best[1]},
        "kept_step": status.get("kept_step"),
        "stopped_early": status.get("stopped_early", False),
        "checkpoints": [_checkpoint(path) for path in checkpoints.every(run.checkpoints)],
        "seconds": status.get("seconds"),
        "tokens_per_second": status.get("tokens_per_second"),
        "peak_memory": status.get("peak_memory"),
        "created": status["created"],
        "folder": str(run.folder),
        "result": str(result) if result else None,
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as a program reads it. Its hashes are left for the resume, which looks at every byte."""
    from llmbench import checkpoints

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {"step": checkpoints.step_of(path), "bytes": size, "fault": checkpoints.fault(path, sizes_only=True)}


def _beside(document: dict[str, Any]) -> str:
    """`+lora`, `+qlora`, `+oft`, or nothing when all parameters were trained."""
    other = document.get("adapter")  # recipes of earlier versions have no such key
    if document["lora"] is None:
        return f"+{other['type']}" if other else ""
    return "+qlora" if document["quantization"] else "+lora"


def _table(records: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("run", "state", "method", "base", "steps", "loss", "time"):
        table.add_column(title, justify="right" if title in ("steps", "loss", "time") else "left", no_wrap=title == "run")
    for r in records:
        held_out = "" if r["eval_loss"] is None else f" / {r['eval_loss']:.3f}"
        steps = f"{r['step']}" if r["steps"] in (None, r["step"]) else f"{r['step']}/{r['steps']}"
        loss = "" if r["loss"] is None else f"{r['loss']:.3f}{held_out}"
        table.add_row(r["name"], r["state"], r["method"], r["base"], steps, loss, _clock(r["seconds"]))
    Console().print(table)


def _details(run: Run, record: dict[str, Any]) -> list[str]:
    document, reason = run.recipe, f" ({record['reason']})" if record["reason"] else ""
    lines = [f"{run.name}: {record['state']}{reason}", f"  {record['method']} on {record['base']}"]
    training, settings = document["training"], []
    if document["lora"]:
        settings.append(f"LoRA r={document['lora']['r']} alpha={document['lora']['lora_alpha']}")
    settings += [f"{training['optim']} at {training['learning_rate']:g}", f"seed {training['seed']}"]
    lines.append(f"  {', '.join(settings)}")
    lines += [f"  data    {_origin(source)}" for source in document["data"]["train"]]
    rows = [row for row in run.metrics() if "loss" in row]
    if rows:
        first, last = rows[0], rows[-1]
        lines.append(f"  loss    {first['loss']:.4f} {_sparkline([row['loss'] for row in rows])} {last['loss']:.4f}")
        lines += _evaluations(run, record)
        early = ", stopped early" if record["stopped_early"] else ""
        lines.append(f"  steps   {record['step']}{'' if record['steps'] is None else '/' + str(record['steps'])}{early}")
    if record["seconds"] is not None:
        speed, memory = f"{record['tokens_per_second']:,.0f} tokens/s", f"{record['peak_memory'] / 2**30:.1f} GiB at most"
        lines.append(f"  time    {_clock(record['seconds'])}, {speed}, {memory}")
    if record["result"]:
        lines.append(f"  result  {record['result']}")
    lines += _checkpoints(run, record)
    return [*lines, f"  folder  {run.folder}"]


def _evaluated(figures: dict[str, float]) -> str:
    """`held out 1.2345, exact_match 0.500` of an evaluation's figures."""
    words = {"loss": "held out", "perplexity": "perplexity"}
    named = ((name.removeprefix("eval_"), value) for name, value in figures.items())
    return ", ".join(f"{words.get(name, name)} {value:.{4 if name == 'loss' else 3}f}" for name, value in named)


def _evaluations(run: Run, record: dict[str, Any]) -> list[str]:
    """A line for each metric of the evaluations: its first and last value, its curve, and where it was best; some answers."""
    rows = run.metrics()
    asked, best = run.recipe["evaluation"], record["best"]
    names = ["eval_loss", *(f"eval_{name}" for name in (asked["metrics"] if asked is not None else []))]
    lines = []
    for name in dict.fromkeys([*names, *([best["metric"]] if best is not None else [])]):
        values = [row[name] for row in rows if name in row]
        if not values:
            continue
        label = "held out" if name == "eval_loss" else name.removeprefix("eval_")
        lines.append(f"  {label:<7} {values[0]:.4f} {_sparkline(values)} {values[-1]:.4f}")
    if best is not None:
        kept = "; its weights are kept" if record["kept_step"] == best["step"] else ""
        lines.append(f"  best    {best['metric'].removeprefix('eval_')} {best['value']:.4f} at step {best['step']}{kept}")
    samples = run.samples()
    last = [row for row in samples if row["step"] == samples[-1]["step"]]
    for row in last[:_SHOWN_SAMPLES]:
        mark = "".join("✓" if value else "✗" for value in row["scores"].values() if value is not None)
        lines.append(f"  answer  {mark} {_short(row['answer'])}   (expected: {_short(row['expected'] or '')})")
    return lines


def _checkpoints(run: Run, record: dict[str, Any]) -> list[str]:
    """The checkpoints that there are to go on from, the damaged ones marked."""
    lines = []
    for entry in record["checkpoints"]:
        wrong = f", damaged: {entry['fault']}" if entry["fault"] else ""
        best = ", the best so far" if record["best"] is not None and record["best"]["step"] == entry["step"] else ""
        lines.append(f"  checkpoint {entry['step']}, {entry['bytes'] / 2**20:,.1f} MiB{best}{wrong}")
    if lines and record["state"] in ("stopped", "failed"):
        lines.append("  go on with the run's recipe and --resume, or with --resume-from-checkpoint STEP")
    return lines


def _short(text: str, width: int = 60) -> str:
    """One line of at most so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _origin(source: dict[str, Any]) -> Any:
    """A data source of a recorded recipe; runs of before had no hub data sets."""
    return source["path"] or source.get("dataset") or source["lessons"]


def _sparkline(values: list[float], width: int = 40) -> str:
    """A curve in at most `width` characters, each the mean of its share of the values."""
    count = min(width, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    return "".join(_BARS[round((value - low) / (high - low or 1) * (len(_BARS) - 1))] for value in means)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
