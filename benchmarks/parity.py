"""What a certificate finds: clean adapters that must pass, and adapters with one ingredient spoiled, in each precision.

    python benchmarks/parity.py                 # llmbench/tiny, 20 clean adapters and 4 of each fault; 6 minutes on two cores
    python benchmarks/parity.py --clean 100

Prints a row for each kind: how many, the verdicts, and the differences in nats a token with what is allowed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmbench import assets, engine, provenance, recipe
from llmbench.parity import Certificate, Parity
from llmbench.recipe import ServeRecipe

TINY = Path(assets.model_folder(assets.TINY))


def adapter(folder: Path, seed: int) -> Certificate:
    """A LoRA adapter with random matrices, as large as short trainings make them, and its certificate."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from llmbench.training.merging import certifying

    torch.manual_seed(seed)
    model: Any = AutoModelForCausalLM.from_pretrained(TINY, dtype=torch.float32)
    rank = (4, 8, 16)[seed % 3]
    targets: Any = "all-linear" if seed % 2 else ["q_proj", "v_proj"]
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets, task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=(0.02, 0.05, 0.1)[seed % 3])
    model.save_pretrained(folder)
    return certifying.certify(folder)


def scaled(factor: float) -> Callable[[Path], None]:
    """A fault: another lora_alpha."""

    def fault(folder: Path) -> None:
        path = folder / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * factor}))

    return fault


def matrices(change: Callable[[dict[str, Any], list[str]], None]) -> Callable[[Path], None]:
    """A fault of the tensors; `change` is given them and the names of the q_proj's B matrices."""

    def fault(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        change(tensors, sorted(name for name in tensors if "q_proj.lora_B" in name))
        save_file(tensors, path, metadata={"format": "pt"})

    return fault


def _lost(tensors: dict[str, Any], q: list[str]) -> None:
    tensors[q[0]] = tensors[q[0]] * 0


def _swapped(tensors: dict[str, Any], q: list[str]) -> None:
    tensors[q[0]], tensors[q[1]] = tensors[q[1]].clone(), tensors[q[0]].clone()


def _deaf(tensors: dict[str, Any], q: list[str]) -> None:
    for name in tensors:
        if "lora_B" in name:
            tensors[name] = tensors[name] * 0


FAULTS: dict[str, Callable[[Path], None]] = {
    "alpha 2 % off": scaled(1.02),
    "alpha halved": scaled(0.5),
    "one q_proj lost": matrices(_lost),
    "two q_proj swapped": matrices(_swapped),
    "no matrix arrives": matrices(_deaf),
}


def main() -> None:
    """Makes the adapters, starts vLLM once for each precision, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=int, default=20, help="clean adapters")
    parser.add_argument("--faulty", type=int, default=4, help="adapters that each fault is tried on")
    parser.add_argument("--dtype", nargs="*", default=["float32", "bfloat16"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        certificates = {f"clean {seed}": adapter(root / f"clean {seed}", seed) for seed in range(options.clean)}
        for fault, spoil in FAULTS.items():
            for seed in range(options.faulty):
                shutil.copytree(root / f"clean {seed}", root / f"{fault} {seed}")
                spoil(root / f"{fault} {seed}")
                certificates[f"{fault} {seed}"] = certificates[f"clean {seed}"]
        print(json.dumps(provenance.versions()))
        print("| precision | adapters | proven | inconclusive | named | nats a token, median and most | allowed at most |")
        print("|---|---|---|---|---|---|---|")
        for dtype in options.dtype:
            found = verdicts(root, certificates, dtype)
            for kind in ["clean", *FAULTS]:
                print(row(dtype, kind, [verdict for name, verdict in found.items() if name.startswith(kind)]))


def verdicts(root: Path, certificates: dict[str, Certificate], dtype: str) -> dict[str, Parity]:
    """What the real vLLM in a precision makes of each adapter."""
    document = {
        "variants": [{"name": f"v{i}", "adapter": str(root / name)} for i, name in enumerate(certificates)],
        "engine": {"dtype": dtype, "cpu_kv_cache_gib": 0.25},
    }
    path = root / f"{dtype}.yaml"
    path.write_text(json.dumps(document), encoding="utf-8")
    serving = recipe.load(path, ServeRecipe)
    admitted = engine.admit_all(serving)
    with engine.Engine(serving, admitted) as process:
        process.wait()
        return {
            name: engine.prove(process.socket, [served])[served.id]
            for name, certificate in certificates.items()
            for served in [replace(admitted[str(root / name)], certificate=certificate)]
        }


def row(dtype: str, kind: str, found: list[Parity]) -> str:
    """One line of the table."""
    states = Counter(one.state for one in found)
    far = sorted(one.difference or 0.0 for one in found)
    most = max(one.allowed for one in found)
    cells = [dtype, f"{kind}, {len(found)}", *(str(states[state]) for state in ("proven", "inconclusive", "differs"))]
    return f"| {' | '.join(cells)} | {far[len(far) // 2]:.1e}, {far[-1]:.1e} | {most:.1e} |"


if __name__ == "__main__":
    main()
