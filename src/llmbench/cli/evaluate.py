"""`llmbench evaluate rag`: how well a pipeline finds, stage by stage and against others, and what makes it better."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llmbench import interrupts
from llmbench.cli.arguments import Json, Overrides, Pipeline
from llmbench.cli.terminal import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from llmbench.recipe import RagRecipe
    from llmbench.retrieval.evaluation import Collection, Evaluated, Report
    from llmbench.retrieval.evaluation.grid import Outcome

__all__ = ["register"]

_EPILOG = "Example: `llmbench evaluate rag rag/handbook.yaml --data rag/questions.jsonl --split test`"


class _Measuring(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Embedding has threads, which Ctrl-C is to end in order."""
        with interrupts.between_locks():
            return super().invoke(ctx)


def register(cli: typer.Typer) -> None:
    """Adds this job's verbs."""
    group = typer.Typer(
        cls=_Measuring, no_args_is_help=True, help="Measure retrieval quality, with confidence intervals.", epilog=_EPILOG
    )
    group.command("rag", epilog=_EPILOG)(rag)
    cli.add_typer(group, name="evaluate")


def rag(
    pipeline: Pipeline,
    overrides: Overrides = None,
    against: Annotated[
        list[str] | None, typer.Option("--against", help="Another pipeline to compare with; repeatable.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Judged questions: a BEIR folder, TREC qrels and queries, or a question file."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Split of the judgements to use; test by default.")] = None,
    run_file: Annotated[Path | None, typer.Option("--run-file", help="Also write the ranking as a TREC run.")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Tune the weight of dense search against terms; keep it if it helps.")
    ] = False,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", help="Values to try, as key=first,second, or a YAML file of lists; repeatable."),
    ] = None,
    ignore_identical: Annotated[
        bool, typer.Option("--ignore-identical", help="Ignore the document whose name equals the query's id.")
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed for the folds and the order of the queries.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Evaluate a pipeline on judged questions: dense only, terms only, fused, with intervals and paired tests.

    A query that finds nothing counts as 0.
    """
    from llmbench.errors import LlmbenchError

    recipe = _load(pipeline, overrides or [])
    collection = _collection(recipe, data, split)
    if grid:
        if tune or against or run_file:
            raise LlmbenchError("--grid builds its own pipelines: leave out --tune, --against and --run-file.")
        _grid(pipeline, recipe, collection, overrides or [], grid, seed, ignore_identical, as_json)
        return
    from llmbench import written
    from llmbench.retrieval import evaluation

    if run_file is not None:  # before the evaluation, which takes its time
        written.check_file(run_file, evaluation.RUN_MARK)
    recipes = [recipe, *(_load(other, []) for other in against or [])]
    found = [_evaluated(one, collection, ignore_identical) for one in recipes]
    report = evaluation.report(collection, found[0], *found[1:], ignore_identical=ignore_identical)
    if tune:
        report = _tuned(report, found[0], collection, seed, ignore_identical)
    page = _keep(report)
    if as_json:
        print_json(report.to_json() | {"page": str(page) if page else None})
    else:
        _show(report, page)
    if run_file is not None and evaluation.write_run(run_file, found[0].runs[report.reference], report.pipeline):
        print(f"{run_file}: spaces in names are written as %20, since the TREC format has none.", file=sys.stderr)


def _load(pipeline: str, overrides: Sequence[str]) -> RagRecipe:
    from llmbench import recipe
    from llmbench.recipe import RagRecipe

    return recipe.load(pipeline, RagRecipe, overrides)


def _collection(recipe: RagRecipe, data: Path | None, split: str | None) -> Collection:
    from llmbench import assets
    from llmbench.errors import DataError
    from llmbench.retrieval import evaluation

    place = assets.find(str(data), Path.cwd()) if data else recipe.questions
    if data and place is None:
        raise DataError(f"--data: {assets.missing(str(data), Path.cwd())}")
    if place is None:
        raise DataError(
            f"{recipe.source}: no judged questions. Set questions, or name a BEIR folder or a question file with --data."
        )
    return evaluation.read(place, split)


def _evaluated(recipe: RagRecipe, collection: Collection, ignore_identical: bool) -> Evaluated:
    from llmbench.retrieval import Retriever, evaluation

    with _bar() as progress, Retriever.open(recipe) as retriever:
        return evaluation.evaluate(retriever, collection, ignore_identical=ignore_identical, progress=progress)


def _tuned(report: Report, found: Evaluated, collection: Collection, seed: int, ignore_identical: bool) -> Report:
    """Tunes alpha, keeps it where it is worth it, and adds what it is worth to the report."""
    from dataclasses import replace

    from llmbench import workspace
    from llmbench.retrieval.evaluation import tuning
    from llmbench.statistics import p_value

    tuned = tuning.tune(found, collection.qrels, pages=collection.pages, ignore_identical=ignore_identical, seed=seed)
    unseen = f"{tuned.held_out.mean:.4f} [{tuned.held_out.low:.4f}, {tuned.held_out.high:.4f}]"
    note = (
        f"alpha {tuned.alpha:g}: {unseen} on held-out queries (by fold: {', '.join(f'{one:g}' for one in tuned.folds)}); "
        f"untuned {tuned.untuned.mean:.4f}, RRF {tuned.rrf.mean:.4f}. On the queries used for tuning {tuned.seen:.4f}, "
        f"which is optimistic."
    )
    if tuned.worth_it:
        tuning.keep(workspace.indexes() / found.recipe.name, tuned, collection.name)
        note += f" Kept with the index: searches now use it ({p_value(tuned.gain.p)} against untuned)."
    else:
        note += " No gain on held-out queries, so the weight stays as it was."
    return replace(report, notes=(*report.notes, note), tuning=tuned.to_json())


def _keep(report: Report) -> Path | None:
    """Writes the page and the figures; returns the page. Where nothing can be written, the figures are shown all the same."""
    from llmbench import workspace, written
    from llmbench.errors import LlmbenchError
    from llmbench.retrieval.evaluation.page import page

    folder = workspace.evaluations() / report.pipeline
    known = _check_claim(folder)
    try:
        written.claim(folder, "evaluation", known=known)
        workspace.write_json(folder / "evaluation.json", report.to_json())
        workspace.write_text(folder / "evaluation.html", page(report))
    except LlmbenchError as error:
        print(f"The page was not written: {error}", file=sys.stderr)
        return None
    return folder / "evaluation.html"


def _check_claim(folder: Path) -> bool:
    """Whether a folder shows that it is an evaluation or a grid; somebody else's is refused."""
    from llmbench import written

    one, grid = (folder / "evaluation.json", "measure", "pipeline"), (folder / "grid.json", "pipelines", "chosen")
    known = any(written.shows(path, *keys) for path, *keys in (one, grid))
    written.check_claim(folder, "evaluation", known=known)
    return known


def _show(report: Report, page: Path | None) -> None:
    from llmbench.cli import terminal
    from llmbench.retrieval.evaluation.report import narrow, pairs, rows, seen, shown, sums

    print(f"{report.pipeline} on {report.collection}: {sums(report)}")
    for table in (rows(report), pairs(report)):
        if table[1:]:
            for part in [table] if terminal.fits(table) else narrow(table):
                terminal.table(part)
    for line in (*shown(report), seen(report), *report.notes):
        if line:
            terminal.paragraph(line)
    if page is not None:
        print(f"\nPage  {page}")


def _grid(
    pipeline: str,
    recipe: RagRecipe,
    collection: Collection,
    overrides: list[str],
    words: list[str],
    seed: int,
    ignore_identical: bool,
    as_json: bool,
) -> None:
    """Runs the grid, shows its table, and writes the chosen pipeline as YAML."""
    from llmbench import retrieval, workspace, written
    from llmbench.cli import terminal
    from llmbench.retrieval.evaluation import grid as racing
    from llmbench.shown import counted

    lists = _lists(words)
    entries = racing.pipelines(recipe, lists, lambda more: _load(pipeline, [*overrides, *more]))
    folder = workspace.evaluations() / recipe.name
    written.claim(folder, "evaluation", known=_check_claim(folder))
    asked = counted(len(collection.queries), "query", "queries")
    print(f"{counted(len(entries), 'pipeline')} on {asked} of {collection.name}.", file=sys.stderr)
    with _bar() as progress:

        def opening(one: RagRecipe) -> AbstractContextManager[Any]:
            retrieval.build(one)
            return retrieval.Retriever.open(one)

        try:
            found = racing.race(
                entries,
                collection,
                opening,
                racing.Journal(folder / "grid.jsonl", collection),
                seed=seed,
                ignore_identical=ignore_identical,
                progress=progress,
            )
        except KeyboardInterrupt:
            print("Results so far are saved. Run the same command again to continue.", file=sys.stderr)
            raise
    chosen = racing.cheapest(found)
    document = folder / "pipeline.yaml"
    workspace.write_text(document, _yaml(pipeline, collection, chosen))
    best = found[0]
    workspace.write_json(folder / "grid.json", {"pipelines": [_outcome(one) for one in found], "chosen": _outcome(chosen)})
    if as_json:
        result = {"collection": collection.name, "pipelines": [_outcome(one) for one in found], "chosen": _outcome(chosen)}
        print_json(result | {"pipeline": str(document)})
        return
    terminal.table(_grid_rows(found))
    for line in (
        f"Best: {best.pipeline.label}. Cheapest that is not significantly worse: {chosen.pipeline.label}.",
        "The choice was made on these queries, so the best figure is somewhat optimistic; confirm it on other queries.",
        "Intervals of the differences are corrected for all pipelines and rounds (Bonferroni).",
    ):
        terminal.paragraph(line)
    print(f"\nPipeline  {document}")


def _lists(words: Sequence[str]) -> dict[str, list[str]]:
    """`key=a,b` and YAML files of lists, as key -> values in YAML's words."""
    import yaml

    from llmbench.errors import RecipeError

    lists: dict[str, list[str]] = {}
    for word in words:
        key, sign, values = word.partition("=")
        if sign:
            lists[key] = [*lists.get(key, []), *(value for value in values.split(",") if value)]
            continue
        try:
            found = yaml.safe_load(Path(word).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise RecipeError(f"--grid {word}: neither key=first,second nor a YAML file of lists ({error}).") from error
        if not isinstance(found, dict) or not all(isinstance(one, list) for one in found.values()):
            raise RecipeError(f"{word}: a grid is a mapping of lists, such as chunking.max_tokens: [100, 200].")
        for name, some in found.items():
            lists[str(name)] = [*lists.get(str(name), []), *map(json.dumps, some)]
    return {key: list(dict.fromkeys(values)) for key, values in lists.items()}


def _grid_rows(found: Sequence[Outcome]) -> list[list[str]]:
    heading = ["pipeline", "nDCG@10", "95% interval", "minus best", "queries", "passages", "ms/query", ""]
    lines = []
    for place, one in enumerate(found):
        behind = "" if place == 0 else f"[{one.low:+.4f}, {one.high:+.4f}]"
        figures = [f"{one.ndcg.mean:.4f}", f"[{one.ndcg.low:.4f}, {one.ndcg.high:.4f}]", behind, str(one.queries)]
        state = "stopped" if one.stopped else "" if one.as_good else "worse"
        lines.append([one.pipeline.label, *figures, str(one.passages), f"{1000 * one.seconds:.1f}", state])
    return [heading, *lines]


def _outcome(one: Outcome) -> dict[str, Any]:
    figures = {"nDCG@10": one.ndcg.mean, "low": one.ndcg.low, "high": one.ndcg.high, "queries": one.queries}
    cost = {"passages": one.passages, "seconds": one.seconds, "stopped": one.stopped, "as_good_as_best": one.as_good}
    return {"overrides": list(one.pipeline.overrides), **figures, **cost}


def _yaml(pipeline: str, collection: Collection, chosen: Outcome) -> str:
    """A pipeline that can be used as it is: every field that is not its default."""
    import yaml

    values = chosen.pipeline.recipe.model_dump(mode="json", exclude_defaults=True)
    figures = (
        f"nDCG@10 {chosen.ndcg.mean:.4f} [{chosen.ndcg.low:.4f}, {chosen.ndcg.high:.4f}], on the queries it was chosen with"
    )
    heading = [f"Chosen from a grid over {pipeline}: {chosen.pipeline.label}", f"{collection.name}: {figures}"]
    return "".join(f"# {' '.join(line.split())}\n" for line in heading) + "\n" + yaml.safe_dump(values, sort_keys=False)


def _bar() -> AbstractContextManager[Callable[[str, int, int], None]]:
    """A progress bar on stderr, as the function that moves it."""
    from contextlib import contextmanager

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))

    @contextmanager
    def bar() -> Iterator[Callable[[str, int, int], None]]:
        console = Console(stderr=True)
        # Where there is no terminal, a bar would leave an empty line in the log.
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("opening the index", total=None)

            def move(what: str, done: int, total: int) -> None:
                progress.update(task, completed=done, total=total, description=what.replace("[", r"\["))

            yield move

    return bar()
