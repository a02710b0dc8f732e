"""The table of bad inputs. Each ends with exit code 2 and lines that say what, where and what next; nothing is left behind."""

# ruff: noqa: E501 - a row of the table is a line

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests import warm

from llmbench import assets
from llmbench.cli.main import main

TRAIN = "name: mine\ndata:\n  train:\n    - path: rows.jsonl\ntraining:\n  max_steps: 2\n"
RAG = "name: mine\ndocuments: [pages]\n"
SERVE = "variants:\n  - name: base\n"
COMPARE = "name: mine\nquestions: {path: questions.jsonl}\nvariants: [base]\nendpoint: {base_url: 'http://127.0.0.1:9/v1'}\n"
ROW = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}\n'
FILES = {"train.yaml": TRAIN, "rag.yaml": RAG, "serve.yaml": SERVE, "compare.yaml": COMPARE, "rows.jsonl": ROW * 8}
OFFLINE = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"}


@dataclass(frozen=True)
class Bad:
    """One bad input: what is run, with which files changed, and what each line of the answer says (regular expressions)."""

    name: str
    command: str
    says: str | list[str]
    files: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


LORA = "lora.r=4"
TABLE = [
    # Recipes
    Bad("unknown key", "train train.yaml", r"train\.yaml:8: training\.learning_rat is not a field\. Did you mean learning_rate\?",
        {"train.yaml": TRAIN + "  seed: 1\n  learning_rat: 1\n"}),
    Bad("unknown key of a pipeline", "index rag.yaml", r"rag\.yaml:3: chunkin is not a field\. Did you mean chunking\?",
        {"rag.yaml": RAG + "chunkin: {}\n"}),
    Bad("unknown key of a serving document", "serve serve.yaml", r"serve\.yaml:3: variants\[0\]\.adaptor is not a field\. Did you mean ad",
        {"serve.yaml": SERVE + "    adaptor: x\n"}),
    Bad("unknown key of a comparison", "compare compare.yaml", r"compare\.yaml:5: metric is not a field\. Did you mean metrics\?",
        {"compare.yaml": COMPARE + "metric: []\n"}),
    Bad("unknown key in an override", "train train.yaml lora.rr=8", r"lora\.rr=8: lora\.rr is not a field\. Did you mean r\?"),
    Bad("several faults at once", "train train.yaml", [
        r"train\.yaml:1: name: '\.\./x' is not allowed: use up to 64 lower-case letters",
        r"train\.yaml:4: data\.train\[0\]\.path: no such file gone\.jsonl \(looked in ",
        r"train\.yaml:5: lora should be a section of `key: value` lines, not 8",
    ], {"train.yaml": "name: ../x\ndata:\n  train:\n    - path: gone.jsonl\nlora: 8\n"}),
    Bad("wrong type", "train train.yaml training.learning_rate=fast",
        r"training\.learning_rate=fast: training\.learning_rate should be a number, not 'fast'"),
    Bad("no YAML", "train train.yaml", r"train\.yaml:2: not valid YAML", {"train.yaml": "name: [\n"}),
    Bad("missing recipe", "train gone.yaml", r"gone\.yaml: no such file\. `llmbench new` lists the bundled recipes"),
    Bad("recipe of another verb", "train serve.yaml", r"serve\.yaml is a recipe for `llmbench serve`.* Run: llmbench serve serve\.yaml"),
    # Training data
    Bad("missing data", "train train.yaml data.train.0.path=gone.jsonl", r"no such file gone\.jsonl \(looked in "),
    Bad("empty data set", "train train.yaml", r"rows\.jsonl: has no rows; llmbench reads", {"rows.jsonl": ""}),
    Bad("row without an assistant turn", "train train.yaml",
        r"rows\.jsonl:2: .*no assistant turn, so this row has nothing to train on",
        {"rows.jsonl": ROW + '{"messages": [{"role": "user", "content": "Hi"}]}\n'}),
    Bad("row that is no JSON", "train train.yaml", r"rows\.jsonl:2: not valid JSON", {"rows.jsonl": ROW + "{\n"}),
    Bad("unknown columns", "train train.yaml", r"rows\.jsonl:1: columns are q, a", {"rows.jsonl": '{"q": "x", "a": "y"}\n'}),
    # The base model
    Bad("base model not found", "train train.yaml model.model_name_or_path=./gone", r"model\.model_name_or_path: there is no folder \S+/gone\."),
    Bad("hub unreachable", "train train.yaml model.model_name_or_path=nobody/nothing", r"nobody/nothing.*(reach|answer)", {}, OFFLINE),
    Bad("hub switched off", "train train.yaml model.model_name_or_path=nobody/nothing", r"nobody/nothing", {}, {"HF_HUB_OFFLINE": "1"}),
    # Runs
    Bad("no such run to resume", "train train.yaml --resume", r"There is no run mine in .*outputs/runs \(available: none yet\)"),
    Bad("no such run to resume from a step", "train train.yaml --resume-from-checkpoint 5", r"There is no run mine in "),
    Bad("nothing to evaluate", "train train.yaml training.eval_steps=1", r"training\.eval_steps=1: has nothing to evaluate: set data\.eval"),
    Bad("broken question of an evaluation", "train train.yaml evaluation.questions=asked.jsonl", r"asked\.jsonl:1: answer is missing, so nothing can be compared",
        {"asked.jsonl": '{"question": "Why?"}\n'}),
    Bad("a run that leads elsewhere", "runs ../../etc", r"run '\.\./\.\./etc' is not allowed: use up to 64 lower-case letters"),
    Bad("unknown run", "runs gone", r"There is no run gone in .* Make one: llmbench train"),
    Bad("unknown run to compare", "runs diff gone mine", r"There is no run gone in "),
    Bad("unknown run to replay", "replay gone --verify", r"There is no run gone in "),
    Bad("nothing to ablate", "ablate train.yaml", r"Say what to vary: --without KEY, --change KEY=VALUE, or both\."),
    Bad("unknown key to leave out", "ablate train.yaml --without lora.rr", r"--without lora\.rr: the recipe has no rr there\. Did you mean r\?"),
    Bad("ablation of what changes nothing", "ablate train.yaml --without lora.r --seeds 1", r"without lora\.r changes nothing: the recipe is that of full"),
    # Documents and indexes
    Bad("index not built", "search rag.yaml kettle", r"index mine is not built\. Run: llmbench index build rag\.yaml"),
    Bad("embedder not found", "index rag.yaml embedder.model_name_or_path=./gone", r"embedder \S+/gone: no such folder", {}, {"HF_HUB_OFFLINE": "1"}),
    Bad("documents not found", "index rag.yaml", r"rag\.yaml:2: documents\[0\]\.path: no such file gone", {"rag.yaml": "name: a\ndocuments: [gone]\n"}),
    # Serving
    Bad("adapter that is not there", "serve serve.yaml --dry-run", r"serve\.yaml: variant base: .*gone", {"serve.yaml": SERVE + "    adapter: gone\n"}),
    Bad("engine open to others without a key", "serve serve.yaml --engine-only --listen 0.0.0.0:8001", r"engine: 0\.0\.0\.0 is reachable from other machines: set engine\.api_key"),
    Bad("engine at no address", "serve serve.yaml --engine-only --listen 8001", r"--listen takes HOST:PORT, such as 127\.0\.0\.1:8001, not '8001'"),
    Bad("address of an engine that is not started alone", "serve serve.yaml --listen 127.0.0.1:8001", r"--listen goes with --engine-only"),
    Bad("engine by more than its address", "serve serve.yaml engine.urls=[http://10.0.0.2:8001/v1]", r"engine\.urls\[0\]: give http://HOST:PORT"),
    Bad("engine listed twice", "serve serve.yaml engine.urls=[http://a:1,http://A:1/]", r"urls: http://a:1 is listed twice"),
    Bad("key in an engine's URL", "serve serve.yaml engine.urls=[http://me:pass@a:1]", r"an engine's key stands in engine\.api_key, not in its URL"),
    Bad("command of engines elsewhere", "serve serve.yaml engine.urls=[http://a:1] --dry-run", r"no vLLM is started here.* add --engine-only"),
    Bad("open to others without a key", "serve serve.yaml gateway.host=0.0.0.0", r"gateway: host 0\.0\.0\.0 is reachable from other machines: set gateway\.api_key"),
    # Comparing
    Bad("endpoint not running", "compare compare.yaml", r"No endpoint answers at http://127\.0\.0\.1:9/v1\. Start one: llmbench serve"),
    Bad("question file with a broken row", "compare compare.yaml", r"questions\.jsonl:2: ", {"questions.jsonl": '{"id": "1", "question": "a?", "answer": "b"}\n{\n'}),
    Bad("question file without rows", "compare compare.yaml", r"questions\.jsonl", {"questions.jsonl": ""}),
    # Other trainers' configurations
    Bad("import of what is missing", "import theirs.yml", r"theirs\.yml: no such file\. Name the configuration of the other trainer\."),
    Bad("import of a list", "import theirs.yml", r"theirs\.yml:1: a configuration is lines of `key: value`, and this is a list", {"theirs.yml": "- a\n"}),
    Bad("import over a file", "import theirs.yml -o rows.jsonl", r"rows\.jsonl already exists\. Name another file, or overwrite it with --overwrite",
        {"theirs.yml": "base_model: a/b\n"}),
    Bad("schema over a file of somebody else's", "schema -o rows.jsonl", r"rows\.jsonl already exists and was not written by llmbench"),
    Bad("show of what does not load", "show train.yaml lora.rr=8", r"lora\.rr=8: lora\.rr is not a field\. Did you mean r\?"),
    # The rest
    Bad("unknown GPU", "advise --hardware RTX9090", r"--hardware RTX9090: not in the table of GPUs\. Known are .*H100"),
    Bad("unknown family of models", "advise --hardware L4 --family gpt9", r"--family gpt9: unknown\. Choose from .*qwen3"),
    Bad("an answer as long as the context", "advise --hardware L4 --answer 2048", r"--answer 2048: leaves no room for a prompt"),
    Bad("advice for an unknown method", "advise --hardware L4 --task recipes/grpo.yaml", r"no estimate for method: grpo"),
    Bad("unknown bundled document", "new sft-loora", r"No bundled document is named sft-loora\. .*llmbench new"),
    Bad("app on a URL that is none", "app --url 127.0.0.1:8000", r"--url 127\.0\.0\.1:8000 is not a URL\. Give one such as http://127\.0\.0\.1:8000/v1"),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with one good document of each kind."""
    place = tmp_path / "project"
    place.mkdir()
    (place / "pages").mkdir()
    (place / "pages" / "kettle.md").write_text("# Kettle\n\nThe kettle is red.\n")
    for name, text in FILES.items():
        (place / name).write_text(text)
    (place / "questions.jsonl").write_text('{"id": "1", "question": "Which colour?", "answer": "red"}\n')
    return place


def run(
    folder: Path, *arguments: str, environment: dict[str, str] | None = None, imported: str | None = None
) -> tuple[int, str, str]:
    """Runs `llmbench`, returns its exit code, stdout and stderr. Deaf to the outer environment's settings of llmbench.

    `imported` is what its process has imported when it starts, of `warm.PACKAGES`.
    """
    outer = {key: value for key, value in os.environ.items() if not key.startswith(("LLMBENCH", "HF_", "OPENAI"))}
    if imported is not None:
        done = warm.run(imported, warm.LLMBENCH, *arguments, cwd=folder, env=outer | (environment or {}))
        return done.returncode, done.stdout, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "llmbench", *arguments],
        cwd=folder, env=outer | (environment or {}), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def files(folder: Path) -> dict[str, int]:
    """Every file with its size, but for locks (empty marks of the kernel's lock) and the cache, which rows may be in whole."""
    return {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock" and "cache" not in path.parts
    }


def check(answer: tuple[int, str, str], says: str | list[str]) -> None:
    code, out, err = answer
    lines = err.splitlines()
    expected = [says] if isinstance(says, str) else says
    assert code == 2, out + err
    assert out == ""
    assert len(lines) == len(expected), err
    for line, pattern in zip(lines, expected, strict=True):
        assert re.search(pattern, line), line


@pytest.mark.parametrize("bad", TABLE, ids=lambda bad: bad.name)
def test_bad_input(bad: Bad, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in bad.files.items():
        (folder / name).write_text(text)
    before = files(folder)
    if bad.environment:  # which packages read once, when they are imported
        answer = run(folder, *bad.command.split(), environment=bad.environment)
    else:  # in this process, which has imported them: ten seconds less a row
        monkeypatch.chdir(folder)
        monkeypatch.delenv("LLMBENCH_HOME")
        monkeypatch.setattr(sys, "argv", ["llmbench", *bad.command.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        answer = (int(ended.value.code or 0), *capsys.readouterr())
    check(answer, bad.says)
    assert files(folder) == before


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


@pytest.mark.parametrize("command", ["serve serve.yaml gateway.port={}", "app --port {}"])
def test_a_port_in_use_is_told_before_anything_starts(command: str, folder: Path, taken: int) -> None:
    before = files(folder)
    check(run(folder, *command.format(taken).split()), rf"{taken} .*(in use|taken)")
    assert files(folder) == before


def test_an_interpreter_without_vllm_is_told_with_the_command_that_mends_it(folder: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "empty")], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    before = files(folder)
    check(
        run(folder, "serve", "serve.yaml", "gateway.port=0", f"engine.python={python}"),
        rf"engine\.python: {python} has no vLLM\. Run: {python} -m pip install",
    )
    assert files(folder) == before


def test_an_adapter_of_another_base_is_refused(folder: Path, lora: Path) -> None:
    other = folder / "other"
    shutil.copytree(lora, other)
    (other / "llmbench.json").write_text(json.dumps({"base": {"weights": "0" * 64}}))
    (folder / "serve.yaml").write_text(SERVE + "    adapter: other\n")
    before = files(folder)
    check(run(folder, "serve", "serve.yaml", "gateway.port=0"), r"serve\.yaml: variant base: .*other")
    assert files(folder) == before


def test_an_index_of_another_embedder_is_refused_with_the_way_out(folder: Path) -> None:
    from llmbench.retrieval.embedding import locate

    code, _, err = run(folder, "index", "rag.yaml")
    assert code == 0, err
    other = folder / "other"
    shutil.copytree(locate("all-MiniLM-L6-v2"), other)
    settings = other / "config_sentence_transformers.json"
    text = settings.read_text()
    settings.unlink()
    settings.write_text(text + "\n")
    (folder / "rag.yaml").write_text(RAG + "embedder: {model_name_or_path: other}\n")
    before = files(folder)
    check(run(folder, "search", "rag.yaml", "kettle"), r"mine.*another embedder.*llmbench index build rag\.yaml --rebuild")
    assert files(folder) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 160 MB: room for an encoder's graph in the cache."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(place)], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path, *, but: int) -> None:
    """Leaves so many bytes free."""
    free = shutil.disk_usage(place).free
    (place / "filler").write_bytes(bytes(free - but))
    assert shutil.disk_usage(place).free <= but


@pytest.mark.slow
def test_a_full_disk_while_training_saves_is_one_line_and_no_half_adapter(folder: Path, small_disk: Path) -> None:
    fill(small_disk, but=400_000)
    code, _, err = run(
        folder, "train", "train.yaml", "lora.r=64", environment={"LLMBENCH_HOME": str(small_disk)}, imported="training"
    )
    assert code == 2, err
    assert re.search(r"cannot be written \((disk full|No space left on device)\)\. Free some space", err.splitlines()[-1]), err
    assert not (small_disk / "runs" / "mine" / "adapter").exists()
    assert json.loads((small_disk / "runs" / "mine" / "state.json").read_text())["state"] == "failed"


@pytest.mark.slow
def test_a_full_disk_while_indexing_is_one_line_and_leaves_the_old_index(folder: Path, small_disk: Path) -> None:
    here = {"LLMBENCH_HOME": str(small_disk)}
    code, _, err = run(folder, "index", "rag.yaml", environment=here)
    assert code == 0, err
    fill(small_disk, but=200_000)
    for number in range(200):
        (folder / "pages" / f"{number}.md").write_text(f"# Page {number}\n\n" + f"Lamp {number} is green. " * 30)
    code, _, err = run(folder, "index", "rag.yaml", environment=here)
    assert code == 2, err
    assert re.search(r"Free some space", err.splitlines()[-1]), err
    assert len(err.splitlines()) == 1
    found = hits(run(folder, "search", "rag.yaml", "kettle", "--json", environment=here))
    assert any("kettle is red" in str(hit["text"]) for hit in found)


def hits(answer: tuple[int, str, str]) -> list[dict[str, object]]:
    code, out, err = answer
    assert code == 0, err
    document = json.loads(out)
    found = document["hits"] if isinstance(document, dict) else document
    assert isinstance(found, list)
    return found


def test_broken_and_encrypted_pdfs_are_reported_skipped_and_counted(folder: Path) -> None:
    from fpdf import FPDF
    from fpdf.enums import EncryptionMethod

    def pdf(name: str, text: str, password: str | None = None) -> None:
        document = FPDF()
        document.add_page()
        document.set_font("helvetica", size=12)
        document.cell(text=text)
        if password:
            document.set_encryption(owner_password="owner", user_password=password, encryption_method=EncryptionMethod.AES_256)
        document.output(str(folder / "pages" / name))

    pdf("good.pdf", "The lamp is green.")
    pdf("locked.pdf", "The secret is blue.", "word")
    (folder / "pages" / "broken.pdf").write_bytes(b"%PDF-1.7\n" + b"\x00garbage" * 50)
    code, out, err = run(folder, "index", "rag.yaml")
    assert code == 0, err
    told = out + err
    assert re.search(r"broken\.pdf", told) and re.search(r"locked\.pdf.*(encrypted|password)", told)
    assert re.search(r"2 .*skipped|skipped.* 2", told)
    assert "Traceback" not in told
    assert hits(run(folder, "search", "rag.yaml", "lamp", "--json"))[0]["source"] == "good.pdf"


def test_a_recipe_for_a_gpu_says_so_where_there_is_none(folder: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has an NVIDIA GPU")
    before = files(folder)
    check(
        run(folder, "train", "train.yaml", "model.device=cuda", imported="training"),
        r"model\.device: cuda, but torch sees no NVIDIA GPU\. Use model\.device=auto",
    )
    assert files(folder) == before


def test_the_table_covers_the_bundled_models_name() -> None:
    """`llmbench/tiny` is the default base of every document above: it must be there, or the table tests something else."""
    assert Path(assets.model_folder(assets.TINY), "model.safetensors").is_file()
