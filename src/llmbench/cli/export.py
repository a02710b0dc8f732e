"""`llmbench export`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmbench.cli import completion
from llmbench.cli.arguments import Json
from llmbench.cli.run_words import Name
from llmbench.cli.terminal import print_json
from llmbench.errors import MissingPackage

if TYPE_CHECKING:
    from llmbench.exporting.job import Exported

__all__ = ["register"]

_FAILED = 3
"""Exit code of a failed proof."""
_HELP = """Write a run's result in another program's format, with a proof that it is what was trained.

Formats and their precisions, the default first:

- `merged`: the whole model in safetensors, for transformers and vLLM (bfloat16, float16, float32)
- `adapter`: the adapter alone in PEFT's format (as-trained, float32, bfloat16, float16)
- `int8`, `w4a16`, `awq`, `fp8`: the merged model in fewer bits, for vLLM (bfloat16), by llm-compressor in an environment of
  its own, which `llmbench doctor` names the command for; all but fp8 are calibrated with rows of the training
- `torchao-int8`: the merged model with its weights in 8 bits, for transformers and vLLM (bfloat16), by torchao
- `gguf`: one file for llama.cpp, Ollama and LM Studio, and a Modelfile (q8_0, f16, q4_k_m)
- `gguf-adapter`: a LoRA alone for llama.cpp and Ollama (f16, f32)
- `onnx`: one graph for onnxruntime on any CPU, which `engine.backend: onnx` serves (float32, int8, int4)
- `onnx-genai`: a graph and a configuration for programs with onnxruntime-genai (float32, int8, int4), by its own builder

The folder is read back before it gets its name, as its users will read it, and compared with the trained model: token ids,
logits at all positions of the probe texts, greedy answers, stop tokens, chat template, tied embeddings and size. `proof.json`
holds what was found. Where a check fails, the folder is kept apart as NAME.failed-proof.

Exit codes: 0 exported and proven; 2 an error, nothing was written; 3 the proof failed; 130 stopped with Ctrl-C.
"""


def register(cli: typer.Typer) -> None:
    """Adds this job's verb."""
    cli.command(
        "export",
        help=_HELP,
        epilog="Examples: `llmbench export sft-lora --format merged` · "
        "`llmbench export sft-lora --format adapter --checkpoint best`",
    )(export)


_Format = Annotated[
    str, typer.Option("--format", "-f", metavar="FORMAT", help="What to write.", autocompletion=completion.formats)
]
_Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="PRECISION",
        help="Of the weights; the format's first by default.",
        autocompletion=completion.precisions,
    ),
]
_Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint", metavar="best|last|STEP", help="A checkpoint, in place of what the training left.", show_default=False
    ),
]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output", "-o", metavar="FOLDER", help="Where to write; exports/RUN-FORMAT-PRECISION by default.", show_default=False
    ),
]
_Compressor = Annotated[
    Path | None,
    typer.Option(
        "--compressor",
        metavar="PYTHON",
        show_default=False,
        help="The Python that has llm-compressor; LLMBENCH_COMPRESSOR, or .venv-compress next to the outputs, by default.",
    ),
]
_Rows = Annotated[
    int | None,
    typer.Option(
        "--calibration-rows", metavar="N", min=1, show_default=False,
        help="Training rows that int8, w4a16 and awq are calibrated with; 128 by default.",
    ),
]  # fmt: skip


def export(
    run: Name,
    format_: _Format,
    precision: _Precision = None,
    checkpoint: _Checkpoint = None,
    output: _Output = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export.")] = False,
    compressor: _Compressor = None,
    calibration_rows: _Rows = None,
    as_json: Json = False,
) -> None:
    """Export, print the proof, and end with 3 where it failed."""
    from rich.console import Console

    from llmbench import runs
    from llmbench.exporting import formats

    found = runs.open_run(run)
    formats.precision_of(formats.named(format_), precision)
    for package in ("torch", "transformers", "peft"):
        if find_spec(package) is None:
            raise MissingPackage("export", package, "train")
    console = Console(stderr=True)
    with console.status("Exporting") as status:

        def say(step: str) -> None:
            status.update(step)
            if not console.is_terminal:
                console.print(step)

        from llmbench.exporting import job

        done = job.export(
            found, format_, precision=precision, checkpoint=checkpoint, output=output, overwrite=overwrite,
            settings={"python": compressor, "rows": calibration_rows}, say=say,
        )  # fmt: skip
    if as_json:
        print_json({"folder": str(done.folder)} | done.proof.as_json())
    else:
        print("\n".join(_lines(done)))
    if not done.proof.holds:
        raise typer.Exit(_FAILED)


def _lines(done: Exported) -> list[str]:
    """The folder, the table of checks, and what to do next."""
    from llmbench.exporting import proof

    verdict = "Exported and proven" if done.proof.holds else "NOT PROVEN, kept apart"
    lines = [f"{verdict}: {done.folder} ({done.proof.format}, {done.proof.precision})"]
    lines += [f"  {line}" for line in proof.lines(done.proof)]
    if not done.proof.holds:
        failed = ", ".join(check.name for check in done.proof.failed)
        return [
            *lines,
            f"Failed: {failed}. The folder is not what was trained: do not use it. Remove it, or look at proof.json",
        ]
    return lines
