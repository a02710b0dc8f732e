"""`llmbench runs`, and `show`, `open`, `stop` and `rm` under it."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmbench.cli import diagnose, listing, runs_diff, runs_labels, runs_lineage, terminal, track
from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Name, Names, clock, short, sparkline
from llmbench.cli.terminal import print_json
from llmbench.errors import LlmbenchError

if TYPE_CHECKING:
    from llmbench.runs import Run

__all__ = ["clock", "evaluated", "list_runs", "record", "register", "show", "summary"]

_SHOWN_SAMPLES = 4
_KINDS = ("lora", "qlora", "oft", "vera", "ia3", "prompt_tuning")
"""What may follow a method: what was trained in place of all parameters."""
_STATES = ("running", "finished", "stopped", "failed")


def register(cli: typer.Typer) -> None:
    """Adds this verb, and the verbs under it."""
    epilog = "Examples: `llmbench runs` · `llmbench runs sft-lora` · `llmbench runs rm sft-lora`"
    group = listing.group(list_runs, metavar="[RUN | COMMAND RUN]", epilog=epilog)
    group.command(epilog="Example: `llmbench runs sft-lora`")(show)
    group.command("open", epilog="Example: `llmbench runs open sft-lora`")(open_folder)
    group.command(epilog="Example: `llmbench runs stop sft-lora`")(stop)
    group.command(epilog="Example: `llmbench runs rm sft-lora sft-lora-2 --yes`")(rm)
    runs_diff.register(group)
    runs_labels.register(group)
    runs_lineage.register(group)
    track.register(group)
    cli.add_typer(group, name="runs")


def list_runs(
    context: typer.Context,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help=f"List only runs in this state: {', '.join(_STATES)}.",
            show_default=False,
            autocompletion=lambda incomplete: [name for name in _STATES if name.startswith(incomplete)],
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="METHOD",
            help="List only runs of this method, such as sft or sft+lora.",
            show_default=False,
            autocompletion=lambda incomplete: [name for name in _methods() if name.startswith(incomplete)],
        ),
    ] = None,
    last: Annotated[int | None, typer.Option(min=1, help="List only the newest N runs.", show_default=False)] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="TAG", help="List only runs with this tag; repeatable, for all of them.", show_default=False),
    ] = None,
    archived: Annotated[bool, typer.Option("--archived", help="List archived runs too.")] = False,
    as_json: Json = False,
) -> None:
    """List the runs, newest first; or show, compare, label, stop or remove some."""
    from llmbench import runs
    from llmbench.runs import labels

    if context.invoked_subcommand is not None:
        if (state, method, last, tag, archived, as_json) != (None, None, None, None, False, False):
            raise LlmbenchError("Options before a run's name apply to the list. To show one run, leave them out.")
        return
    if state is not None and state not in _STATES:
        raise LlmbenchError(f"--state {state} is not a state. Choose one of: {', '.join(_STATES)}")
    if method is not None and method not in _methods():
        plain = ", ".join(name for name in _methods() if "+" not in name)
        kinds = ", ".join(f"+{kind}" for kind in _KINDS)
        raise LlmbenchError(f"--method {method} is not a method. Choose one of: {plain}; or one of them with {kinds}")
    every = [run for run in runs.every() if _readable(run)]
    shown = [run for run in every if archived or not labels.read(run).archived]
    wanted = set(tag or ())
    fitting = (run for run in shown if _fits(run, state, method) and wanted <= set(labels.read(run).tags))
    found = list(islice(fitting, last))
    if as_json:
        print_json([record(run) for run in found])
    elif not every:
        print("No runs yet. Make one: llmbench train recipes/sft-lora.yaml")
    elif not shown:
        print(f"All {len(every)} runs are archived. List them: llmbench runs --archived")
    elif not found:
        print(f"None of the {len(shown)} runs matches. Leave out --state, --method or --tag to list them.")
    else:
        _table([summary(run) for run in found])


def show(name: Name, as_json: Json = False) -> None:
    """Show a run: its recipe, figures, curve and files."""
    from llmbench import runs

    run = runs.open_run(name)
    one = record(run)
    if as_json:
        lock = run.lock if (run.folder / "lock.json").exists() else None
        print_json(one | {"recipe": run.recipe, "lock": lock, "metrics": run.metrics()})
    else:
        print("\n".join(_details(run, one)))


def open_folder(name: Name) -> None:
    """Print a run's folder, and open it in the file manager of a desktop."""
    from llmbench import runs

    listing.launch(runs.open_run(name).folder)


def stop(name: Name, as_json: Json = False) -> None:
    """Stop a run that is training: it saves a checkpoint after its current step, and can be resumed."""
    from llmbench import runs

    run = runs.open_run(name)
    holder = run.stop()
    if as_json:
        print_json({"name": name, "process": holder.process, "machine": holder.machine})
    else:
        where = "" if holder.here else f" on {holder.machine}, within seconds"
        print(f"{name} was asked to stop{where}. It saves a checkpoint after its current step and ends.")


def rm(names: Names, yes: listing.Yes = False, as_json: Json = False) -> None:
    """Remove runs with their adapters, models and checkpoints.

    Refuses to remove a run that is training, or a folder that holds other files; then none of the runs is removed. With --json,
    several runs make a list.

    Exit code 0: removed; 1: you answered no; 2: an error, and nothing was removed.
    """
    from llmbench import runs

    found = [runs.open_run(name) for name in dict.fromkeys(names)]
    for run in found:
        runs.check_removal(run)
    sizes = [sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()) for run in found]
    if len(found) == 1:
        [run], [size] = found, sizes
        listing.confirm(f"Remove run {run.name} ({run.state}, {size / 2**20:,.1f} MiB) at {run.folder}?", yes)
    else:
        listed = ", ".join(run.name for run in found)
        listing.confirm(f"Remove {len(found)} runs ({listed}; {sum(sizes) / 2**20:,.1f} MiB)?", yes)
    removed: list[dict[str, Any]] = []
    for run, size in zip(found, sizes, strict=True):
        runs.remove(run)
        removed.append({"name": run.name, "removed": str(run.folder), "bytes": size})
        if not as_json:
            print(f"Removed run {run.name} ({size / 2**20:,.1f} MiB).")
    if as_json:
        print_json(removed if len(removed) > 1 else removed[0])


def _readable(run: Run) -> bool:
    """Whether a run can be listed; what is wrong with one that cannot goes to stderr, and the others are listed."""
    from llmbench.runs import labels

    try:
        labels.read(run)
        return bool(run.recipe)
    except LlmbenchError as error:
        print(error, file=sys.stderr)
        return False


def _fits(run: Run, state: str | None, method: str | None) -> bool:
    if state is not None and run.state != state:
        return False
    return method is None or method in ((found := _method(run.recipe)), found.partition("+")[0])


def summary(run: Run) -> dict[str, Any]:
    """What the list says of a run. A long log is read from its end: 200 of them are listed in a second."""
    status, document = run.status, run.recipe
    last = {} if status["state"] == "finished" else run.last_metrics()
    return {
        "name": run.name,
        "state": status["state"],
        "method": _method(document),
        "base": _base(document),
        "step": max(status.get("step", 0), last.get("step", 0)),
        "steps": status.get("steps"),
        "loss": last.get("loss") if status.get("loss") is None else status["loss"],
        "eval_loss": status.get("eval_loss"),
        "seconds": status.get("seconds"),
    } | _labels(run)


def _labels(run: Run) -> dict[str, Any]:
    from llmbench.runs import labels

    found = labels.read(run)
    return {"note": found.note, "tags": list(found.tags), "archived": found.archived}


def _base(document: dict[str, Any]) -> str:
    return "random weights" if document["model"]["config"] else str(document["model"]["model_name_or_path"])


def _methods() -> list[str]:
    """What `--method` takes: every method, alone and with each kind of adapter."""
    from typing import get_args

    from llmbench.recipe import TrainRecipe

    names = get_args(TrainRecipe.model_fields["method"].annotation)
    return [*names, *(f"{name}+{kind}" for name in names for kind in _KINDS)]


def _method(document: dict[str, Any]) -> str:
    return str(document["method"]) + _beside(document)


def record(run: Run) -> dict[str, Any]:
    """A run as a program reads it."""
    from llmbench.recipe import TrainingSpec
    from llmbench.runs import checkpoints
    from llmbench.runs.best import goal

    status, document = run.status, run.recipe
    rows = [row for row in run.metrics() if "loss" in row]
    judged = goal(TrainingSpec.model_validate(document["training"]))
    best = judged.best(run.metrics()) if judged is not None else None
    result = run.adapter if run.adapter.exists() else run.model if run.model.exists() else None
    return {
        "name": run.name,
        "state": status["state"],
        "reason": status["reason"],
        "method": _method(document),
        "base": _base(document),
        "step": max(status.get("step", 0), rows[-1]["step"] if rows else 0),
        "steps": status.get("steps"),
        "loss": status["loss"] if status.get("loss") is not None else rows[-1]["loss"] if rows else None,
        "warning": status.get("warning"),
        "seconds_left": status.get("seconds_left") if status["state"] == "running" else None,
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
    } | _labels(run)


def _checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint as a program reads it. Its hashes are left for the resume, which looks at every byte."""
    from llmbench.runs import checkpoints

    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return {"step": checkpoints.step_of(path), "bytes": size, "fault": checkpoints.fault(path, sizes_only=True)}


def _beside(document: dict[str, Any]) -> str:
    """`+lora`, `+qlora`, `+oft`, or nothing when all parameters were trained."""
    other = document.get("adapter")  # recipes of earlier versions have no such key
    if document["lora"] is None:
        return f"+{other['type']}" if other else ""
    return "+qlora" if document["quantization"] else "+lora"


def _table(records: list[dict[str, Any]]) -> None:
    tagged = any(r["tags"] for r in records)
    rows = [["run", "state", "method", "base", "steps", "loss", "time", *(["tags"] if tagged else [])]]
    for r in records:
        held_out = "" if r["eval_loss"] is None else f" / {r['eval_loss']:.3f}"
        steps = f"{r['step']}" if r["steps"] in (None, r["step"]) else f"{r['step']} of {r['steps']}"
        loss = "" if r["loss"] is None else f"{r['loss']:.3f}{held_out}"
        state = f"{r['state']}, archived" if r["archived"] else r["state"]
        row = [r["name"], state, r["method"], r["base"], steps, loss, clock(r["seconds"])]
        rows.append([*row, ", ".join(r["tags"])] if tagged else row)
    terminal.listing(rows, shrink=(0, 3, *([7] if tagged else [])), right=(4, 5, 6))


def _details(run: Run, record: dict[str, Any]) -> list[str]:
    document, reason = run.recipe, f" ({record['reason']})" if record["reason"] else ""
    lines = [f"{run.name}: {record['state']}{reason}", f"  {record['method']} on {record['base']}"]
    lines += [f"  warning {record['warning']}"] if record["warning"] else []
    lines += diagnose.brief(run)
    lines += [f"  note    {line}" for line in record["note"].splitlines()]
    lines += [f"  tags    {', '.join(record['tags'])}"] if record["tags"] else []
    lines += ["  archived"] if record["archived"] else []
    training, settings = document["training"], []
    if document["lora"]:
        settings.append(f"LoRA r={document['lora']['r']} alpha={document['lora']['lora_alpha']}")
    settings += [f"{training['optim']} at {training['learning_rate']:g}", f"seed {training['seed']}"]
    lines.append(f"  {', '.join(settings)}")
    lines += [f"  data    {_origin(source)}" for source in document["data"]["train"]]
    rows = [row for row in run.metrics() if "loss" in row]
    if rows:
        first, last = rows[0], rows[-1]
        lines.append(f"  loss    {first['loss']:.4f} {sparkline([row['loss'] for row in rows])} {last['loss']:.4f}")
        lines += _evaluations(run, record)
        early = ", stopped early" if record["stopped_early"] else ""
        left = f", {clock(record['seconds_left'])} left" if record["seconds_left"] is not None else ""
        lines.append(
            f"  steps   {record['step']}{'' if record['steps'] is None else ' of ' + str(record['steps'])}{early}{left}"
        )
    if record["seconds"] is not None:
        speed, memory = f"{record['tokens_per_second']:,.0f} tokens/s", f"peak {record['peak_memory'] / 2**30:.1f} GiB"
        lines.append(f"  time    {clock(record['seconds'])}, {speed}, {memory}")
    if record["result"]:
        lines.append(f"  result  {record['result']}")
    lines += _checkpoints(run, record)
    return [*lines, f"  folder  {run.folder}"]


_INNER = ("entropy", "num_tokens", "logits/", "logps/", "mean_token_accuracy", "completions/", "clip_ratio/", "frac_")
"""Figures of TRL's trainers that tell how an outcome came about."""


def evaluated(figures: dict[str, float]) -> str:
    """`held out 1.2345, exact_match 0.500` of an evaluation's figures; what is not the outcome stays in metrics.jsonl."""
    words = {"loss": "held out", "perplexity": "perplexity"}
    named = ((name.removeprefix("eval_"), value) for name, value in figures.items())
    named = ((name, value) for name, value in named if not name.startswith(_INNER))
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
        lines.append(f"  {label:<7} {values[0]:.4f} {sparkline(values)} {values[-1]:.4f}")
    if best is not None:
        kept = "; its weights are kept" if record["kept_step"] == best["step"] else ""
        lines.append(f"  best    {best['metric'].removeprefix('eval_')} {best['value']:.4f} at step {best['step']}{kept}")
    samples = run.samples()
    last = [row for row in samples if row["step"] == samples[-1]["step"]]
    for row in last[:_SHOWN_SAMPLES]:
        mark = "".join("✓" if value else "✗" for value in row["scores"].values() if value is not None)
        lines.append(f"  answer  {mark} {short(row['answer'])}   (expected: {short(row['expected'] or '')})")
    return lines


def _checkpoints(run: Run, record: dict[str, Any]) -> list[str]:
    """The checkpoints that there are to go on from, the damaged ones marked."""
    lines = []
    for entry in record["checkpoints"]:
        wrong = f", damaged: {entry['fault']}" if entry["fault"] else ""
        best = ", the best so far" if record["best"] is not None and record["best"]["step"] == entry["step"] else ""
        lines.append(f"  checkpoint {entry['step']}, {entry['bytes'] / 2**20:,.1f} MiB{best}{wrong}")
    if lines and record["state"] in ("stopped", "failed"):
        lines.append("  resume with the run's recipe and --resume, or with --resume-from-checkpoint STEP")
    return lines


def _origin(source: dict[str, Any]) -> Any:
    """A data source of a recorded recipe; runs of before had no hub data sets."""
    return source["path"] or source.get("dataset") or source["lessons"]
