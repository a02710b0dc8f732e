"""`llmbench gate`: is a candidate not worse than the baseline? With an exit code that CI obeys."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json, Overrides
from llmbench.errors import LlmbenchError, MissingPackage

if TYPE_CHECKING:
    from llmbench.compare import Comparison
    from llmbench.gate import Baseline, Gate, GateRequest
    from llmbench.recipe import CompareRecipe, Margin

__all__ = ["register"]

Several = Literal["fixed-sequence", "holm"]

_EPILOG = (
    "Examples: `llmbench gate recipes/compare.yaml --baseline base-rag --candidate adapter-rag --margin 0.02` · "
    "`llmbench gate recipes/compare.yaml --candidate adapter-rag --save-baseline main.json` · "
    "`llmbench gate recipes/compare.yaml --baseline main.json --candidate adapter-rag --margin 0.02 --markdown comment.md`\n\n"
    "Exit code 3 here means undecided; of `llmbench export` it means that an export is not what was trained."
)


def register(cli: typer.Typer) -> None:
    """Adds this verb."""
    cli.command("gate", epilog=_EPILOG)(gate)


def gate(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A comparison recipe, such as recipes/compare.yaml.", autocompletion=completion.recipes
        ),
    ],
    overrides: Overrides = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT|FILE",
            help="What is shipped now: a variant of the recipe, or a file of --save-baseline. Default: the preregistered one.",
            show_default=False,
        ),
    ] = None,
    candidate: Annotated[
        str | None,
        typer.Option(
            metavar="VARIANT",
            help="What may take its place. Default: the preregistered one, or the only one.",
            show_default=False,
        ),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            metavar="MARGIN",
            help="By how much it may be worse: 0.02 is 2 points; 10% of seconds or tokens. Default: the preregistered one.",
            show_default=False,
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=MARGIN]",
            help="The metric, and its margin; several times for several metrics. Default: the preregistered one, or the first.",
            show_default=False,
        ),
    ] = None,
    several: Annotated[
        Several,
        typer.Option(help="Several metrics: judged in their order until one is not shown, or all with Holm's correction."),
    ] = "fixed-sequence",
    superior: Annotated[bool, typer.Option("--superior", help="Ask whether it is better, not only not worse.")] = False,
    save_baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Save the candidate's values as a baseline; with --baseline, only if the gate is passed.",
            show_default=False,
        ),
    ] = None,
    finished: Annotated[
        bool, typer.Option("--finished", help="Judge the comparison as it was finished; ask nothing, need no endpoint.")
    ] = False,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a comment for a pull request.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit's XML.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option("--url", help="Short for endpoint.base_url=URL: an OpenAI-compatible endpoint.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Judge whether a variant is not worse than a baseline by a margin, or better, for CI.

    It runs the comparison as far as answers are missing, and looks at the limits of the paired difference, by page: at
    confidence 95%, a candidate that is worse by just the margin passes in at most 2.5% of gates.

    Exit code 0: shown; 1: shown to be worse; 2: it could not run; 3: undecided, with the number of questions that it takes;
    130: Ctrl-C.
    """
    from importlib.util import find_spec

    if find_spec("scipy") is None:
        raise MissingPackage("gate", "scipy", "compare")
    from llmbench import gate as gating
    from llmbench import recipe as recipes
    from llmbench.recipe import CompareRecipe

    values = [*(overrides or ()), *([f"endpoint.base_url={url}"] if url is not None else ())]
    document = recipes.load(recipe, CompareRecipe, values)
    asked = _asked(
        document, baseline, candidate, margin, metric or [], several, superior=superior, saves=save_baseline is not None
    )
    _check_files(markdown, junit, save_baseline)
    if not isinstance(asked, str):
        gating.check(asked, document)
    comparison = gating.finished(document) if finished else _compared(document)
    if isinstance(asked, str):  # Nothing is judged.
        assert save_baseline is not None
        _say_saved(gating.save(save_baseline, comparison, document, asked), save_baseline, as_json)
        return
    found = gating.judge(asked, comparison, document)
    if markdown is not None:
        gating.outputs.write_markdown(markdown, found)
    if junit is not None:
        gating.outputs.write_junit(junit, found)
    saved = save_baseline if save_baseline is not None and found.code == 0 else None
    if saved is not None:
        gating.save(saved, comparison, document, found.candidate)
    _say(found, {"Markdown": markdown, "JUnit": junit, "Baseline": saved}, as_json)
    if found.code:
        raise typer.Exit(found.code)


def _asked(
    document: CompareRecipe,
    baseline: str | None,
    candidate: str | None,
    margin: str | None,
    metric: list[str],
    several: Several,
    *,
    superior: bool,
    saves: bool,
) -> GateRequest | str:
    """What the gate is asked; or the variant that is to be saved, where nothing is to be judged."""
    from llmbench import gate as gating

    promised = document.preregistration.baseline if document.preregistration is not None else None
    if baseline is None and saves:
        return gating.candidate_of(document, None, candidate)
    chosen = baseline or promised
    if chosen is None:
        raise LlmbenchError(
            f"What is it compared with? Name one with --baseline: a variant ({', '.join(document.names)}), or a file of "
            "--save-baseline."
        )
    if superior and (margin is not None or any("=" in one for one in metric)):
        raise LlmbenchError("--superior asks for better than the baseline: leave out the margins.")
    read = _baseline(document, chosen)
    return gating.GateRequest(
        read,
        gating.candidate_of(document, read if isinstance(read, str) else None, candidate),
        tuple(_metric(one) for one in metric),
        None if margin is None else _margin(margin, "--margin"),
        superior,
        several,
        None if isinstance(read, str) else Path(chosen),
    )


def _baseline(document: CompareRecipe, chosen: str) -> str | Baseline:
    from llmbench import gate as gating

    if chosen in document.names:
        return chosen
    path = Path(chosen).expanduser()
    if not path.exists():
        raise LlmbenchError(
            f"--baseline: {chosen} is neither a variant of the recipe ({', '.join(document.names)}) nor a file. Save one: "
            f"llmbench gate {document.source} --save-baseline FILE"
        )
    return gating.baseline.read(path)


def _metric(written: str) -> tuple[str, Margin | None]:
    name, equals, margin = written.partition("=")
    return name, _margin(margin, f"--metric {name}") if equals else None


def _margin(written: str, where: str) -> Margin:
    from llmbench.recipe import Margin

    try:
        return Margin.parse(written)
    except ValueError as error:
        raise LlmbenchError(f"{where}: {error}") from error


def _check_files(markdown: Path | None, junit: Path | None, baseline: Path | None) -> None:
    from llmbench import gate as gating

    named = [path.absolute() for path in (markdown, junit, baseline) if path is not None]
    if len(set(named)) < len(named):
        raise LlmbenchError("--markdown, --junit and --save-baseline need files of their own.")
    gating.outputs.check(markdown, junit)
    if baseline is not None:
        gating.baseline.check(baseline)


def _compared(document: CompareRecipe) -> Comparison:
    from llmbench import compare as comparing
    from llmbench.cli.asking_bar import AskingBar

    with AskingBar() as bar:
        return comparing.run(document, progress=bar.show, measuring=bar.measuring)


def _say_saved(made: Baseline, path: Path, as_json: bool) -> None:
    from llmbench.cli.terminal import print_json

    if as_json:
        print_json({"baseline": str(path), "variant": made.variant, "questions": len(made.questions), "saved": made.saved})
    else:
        print(f"Saved {made.variant}, {len(made.questions):,} questions, as a baseline: {path}")


def _say(found: Gate, files: dict[str, Path | None], as_json: bool) -> None:
    from llmbench.cli import terminal
    from llmbench.gate import sentences
    from llmbench.shown import printable

    wrote = {name: str(path) for name, path in files.items() if path is not None}
    if as_json:
        named = {name.lower(): path for name, path in wrote.items()}
        terminal.print_json(found.to_json() | {"sentence": sentences.sentence(found), "files": named})
        return
    table = [[printable(cell) for cell in row] for row in sentences.rows(found)]
    if terminal.fits(table):
        terminal.table(table)
    else:
        for row in table[1:]:
            terminal.table([["", row[0]], *([head, cell] for head, cell in zip(table[0][1:], row[1:], strict=True))])
    terminal.paragraph(printable(sentences.sentence(found)))
    for said in sentences.explained(found):
        terminal.paragraph(printable(said))
    print(f"\nReport    {found.report}")
    for name, path in wrote.items():
        print(f"{name:<9} {path}")
