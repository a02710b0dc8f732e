"""Does teaching a model to read a pipeline's passages help on articles that it was not taught on? Index to verdict.

    python benchmarks/raft_xquad.py PATH/xquad_en MODEL --folder FOLDER [--learning-rate 1e-3]
    python benchmarks/raft_xquad.py --convert FILE.gguf MODEL       # weights of a GGUF file as a folder; needs the package gguf

240 paragraphs of 48 Wikipedia articles are the documents. `llmbench raft` makes training rows of the questions about two
articles of three, `llmbench train` one epoch of LoRA on them, and `llmbench compare` asks the questions about the others, of
base and adapter, with the pipeline and without. MODEL is any instruct model's folder. What FOLDER holds already is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

NAME = "raft-xquad"
PORT = 8017
METRICS = ["grounded", "contains_value", "squad_f1", "citation", "abstention", "value_retrieved"]


def llmbench(folder: Path, *words: str) -> None:
    """One command, its output shown, and how long it took."""
    began = time.perf_counter()
    print(f"$ llmbench {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "llmbench", *words], cwd=folder, check=True)
    print(f"  {time.perf_counter() - began:.0f} s", flush=True)


def questions(path: Path) -> list[dict[str, Any]]:
    """With the paragraph that each is about; every third article is of the test split."""
    corpus = (path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    names = {row["text"].strip(): row["_id"] for row in map(json.loads, corpus)}
    found = []
    for i, article in enumerate(json.loads((path / "xquad.en.json").read_text(encoding="utf-8"))["data"]):
        for paragraph in article["paragraphs"]:
            for asked in paragraph["qas"]:
                row = {"id": asked["id"], "question": asked["question"]}
                row |= {"value": list(dict.fromkeys(answer["text"] for answer in asked["answers"]))}
                row |= {"source": f"corpus.jsonl#{names[paragraph['context'].strip()]}"}
                found.append(row | {"split": "test" if i % 3 == 0 else "train"})
    return found


def write(folder: Path, path: Path, model: Path, rate: float) -> None:
    """The questions and the four documents."""
    rows = questions(path)
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    columns = {"id": "_id", "text": "text", "title": "title"}
    documents = {
        "pipeline": {
            "name": NAME,
            "documents": [{"path": str(path / "corpus.jsonl"), "columns": columns}],
            "search": {"top_k": 3},
        },
        "train": {
            "name": NAME,
            "model": {"model_name_or_path": str(model)},
            "data": {"train": [{"path": "rows.jsonl"}], "eval_fraction": 0.05, "max_length": 1024},
            "lora": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
            "training": {"num_train_epochs": 1, "max_tokens_per_batch": 4096, "learning_rate": rate, "warmup_steps": 0.05},
        },
        "serve": {
            "model": {"model_name_or_path": str(model)},
            "variants": [
                {"name": "base"},
                {"name": "base-rag", "rag": "pipeline.yaml"},
                {"name": "adapter", "adapter": NAME},
                {"name": "adapter-rag", "adapter": NAME, "rag": "pipeline.yaml"},
            ],
            "engine": {"cpu_kv_cache_gib": 1},
            "gateway": {"port": PORT},
        },
        "compare": {
            "name": NAME,
            "endpoint": {"base_url": f"http://127.0.0.1:{PORT}/v1"},
            "questions": {"path": "questions.jsonl", "split": "test"},
            "variants": ["base", "base-rag", "adapter", "adapter-rag"],
            "metrics": METRICS,
        },
    }
    for name, document in documents.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")


def served(folder: Path) -> subprocess.Popen[str]:
    """`llmbench serve`, ready."""
    command = [sys.executable, "-m", "llmbench", "serve", "serve.yaml"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        if line.startswith("Ready"):
            print(line, end="", flush=True)
            return server
    raise SystemExit(f"the endpoint did not start: look into {folder / 'outputs' / 'logs'}")


def convert(gguf: Path, model: Path) -> None:
    """A GGUF file's weights in bfloat16, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    loaded = AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    loaded.save_pretrained(model)
    AutoTokenizer.from_pretrained(**where).save_pretrained(model)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("path", type=Path)
    arguments.add_argument("model", type=Path)
    arguments.add_argument("--folder", type=Path)
    arguments.add_argument("--learning-rate", type=float, default=1e-3)
    arguments.add_argument("--convert", action="store_true")
    options = arguments.parse_args()
    if options.convert:
        convert(options.path.resolve(), options.model)
        return
    if options.folder is None:
        arguments.error("--folder is needed: runs, index and answers are kept there")
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["HF_HUB_OFFLINE"] = "1"
    write(folder, options.path.resolve(), options.model.resolve(), options.learning_rate)
    llmbench(folder, "index", "pipeline.yaml")
    llmbench(folder, "raft", "pipeline.yaml", "questions.jsonl", "--split", "train", "--output", "rows.jsonl", "--overwrite")
    if not (folder / "outputs" / "runs" / NAME / "adapter").is_dir():
        llmbench(folder, "train", "train.yaml")
    server = served(folder)
    try:
        llmbench(folder, "compare", "compare.yaml")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


if __name__ == "__main__":
    main()
