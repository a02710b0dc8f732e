"""The architecture, held by reading the imports: who may import whom, where each heavy package lives, and what is banned."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from tests.changed import room

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "llmbench"

LAYERS = [
    {"confined"},
    {"errors", "interrupts", "message", "reasoning", "rows", "sandbox", "shown", "statistics", "svg", "turns"},
    {
        "assets",
        "page",
        "workspace",
        "tiny",
        "scan",
        "scoring",
        "hardware",
        "own_code",
        "control_tokens",
        "provenance",
        "changes",
        "borrowed",
        "onnx_model",
    },
    {"written", "questions", "sqlite_file"},
    {"parity", "recipe"},
    {"data", "runs", "endpoint"},
    {"architecture", "estimate", "importing", "tracking"},
    {"training", "retrieval", "engine"},
    {"diagnosis", "exporting", "gateway"},
    {"compare"},
    {"ablation", "containers", "demo", "doctor", "gate", "raft", "rollout", "sweep", "votes"},
    {"cli"},
    {"__main__"},
]
"""From the bottom to the top. A room imports from lower lines only, never from its own."""

RETRIEVAL = [
    {"documents", "embedding/light", "store/vectors", "store/words"},
    {"chunking", "reading", "embedding"},
    {"store"},
    {"search"},
    {"evaluation"},
    {"index"},
    {"__init__"},
]
"""The rooms inside retrieval, as in LAYERS: a room imports from lower lines only. `store/words` is a room of its own."""

TRAINING = [
    {"distributed"},
    {"kernels", "loop", "quiet"},
    {"loading"},
    {"certificate", "lock", "needs"},
    {"performance"},
    {"job"},
    {"data_report", "methods", "save"},
    {"merging", "plan"},
    {"stages"},
    {"ranging", "replaying"},
    {"__init__"},
    {"selftest"},
]
"""The rooms inside training and the files of its own folder, as in LAYERS: each imports from lower lines only."""

INSIDE = {
    ("retrieval/__init__.py", "retrieval.search.answer"),  # three names more than the face of search has room for
    ("retrieval/index/build.py", "retrieval.reading.password"),  # asked for before anything is read
    ("retrieval/index/build.py", "retrieval.reading.standard_input"),  # likewise
    ("cli/index_care.py", "retrieval.index.freshness"),  # one name more than the face of index has room for
    ("retrieval/index/freshness.py", "retrieval.reading.standard_input"),  # its name, under which the index holds it
    ("retrieval/search/condition.py", "retrieval.store.filters"),  # which fields a filter compares: a filter's own grammar
    ("retrieval/evaluation/tuning.py", "retrieval.search.fusion"),  # fuses again what was found, with other weights
    ("cli/evaluate.py", "retrieval.evaluation.grid"),  # the verb prints what evaluation found, part by part
    ("cli/evaluate.py", "retrieval.evaluation.page"),
    ("cli/evaluate.py", "retrieval.evaluation.report"),
    ("cli/evaluate.py", "retrieval.evaluation.tuning"),
}
"""Who imports an inner module of a room of retrieval from outside it, and why; everybody else asks the room's face."""

DOORS = {
    ("__main__.py", "cli.main"),  # the program begins there
    ("cli/certify.py", "training.merging.certifying"),  # loads an adapter and its base, and no trainer
    ("cli/check.py", "training.loading.model"),  # loads a tokenizer and a model's configuration, and no trainer
    ("cli/keys.py", "gateway.redis_book"),  # reads what keys have spent, and loads no server
    ("cli/merge.py", "training.merging.merge"),  # likewise, a merge alone
    ("exporting/job.py", "training.loop.checkpoint"),  # what is exported is the inside of a training, loaded without a trainer
    ("exporting/job.py", "training.quiet"),
    ("exporting/job.py", "training.save"),
    ("exporting/judging.py", "training.merging.probes"),
    ("exporting/material.py", "training.certificate"),
    ("exporting/material.py", "training.loading.adapter"),
    ("exporting/material.py", "training.loading.model"),
    ("exporting/material.py", "training.merging.probes"),
    ("exporting/material.py", "training.merging.weights"),
    ("exporting/quantised.py", "training.merging.probes"),
    ("exporting/source.py", "training.loading.model"),
    ("doctor.py", "exporting.compressor"),  # looks for an environment, and loads nothing
    ("cli/selftest.py", "engine.patches"),  # prints the register of what is borrowed, room by room
}
"""Who imports an inner module of a room that its face does not name, and why. Retrieval has a list of its own."""

APP = {
    "llmbench.assets", "llmbench.compare", "llmbench.diagnosis", "llmbench.endpoint", "llmbench.errors",
    "llmbench.gateway.background",
    "llmbench.questions", "llmbench.recipe", "llmbench.retrieval", "llmbench.retrieval.reading", "llmbench.runs",
    "llmbench.svg.lines", "llmbench.votes", "llmbench.workspace", "llmbench.reasoning",
}  # fmt: skip
"""What app/ may import of the library."""

SHARED = {
    # The field has one word for what each of two rooms has of its own.
    "Batches": "rows of a training, and passages of a writer",
    "Document": "a recipe, and what is indexed",
    "Finding": "about a machine, and about a run",
    "Estimate": "of a mean, with its interval, and of what a training needs",
    "Layout": "of an encoder's folder, and of a page of RTF",
    "Limit": "on questions, on the length of rows, and on a template's work",
    "Page": "of the bundled handbook, and of a rendered conversation",
    "Plan": "of an approximate index, and of postings",
    "Row": "of data, of a report, of a comparison, and of a rendered conversation: what is known about each differs",
    "Section": "of a recipe, of a document, and of a data report",
    "Tokens": "with a window, without one, and with what is learned",
    "Words": "of a document, of a prompt, and of duplicates",
    # One is the other's as its room sees it.
    "Contract": "an index's holds the embedder's",
    "Endpoint": "what a comparison needs of one, and one",
    "Grounded": "as a client sees it, and as retrieval does",
    "Group": "of duplicates, by number and as reported",
    "Hashes": "of files, and as reported",
    "Trainer": "one for each method, named by its module",
    # Words of one room's inside that no other imports.
    "Change": "of a recipe, and of settings on offer",
    "Choice": "of a setting, and of what embeds",
    "Fault": "of a row, and of a store",
    "Found": "a borrowed name, a table, a passage, a secret",
    "Grid": "the rules of a table on a page, and the four variants of a comparison",
    "Part": "of data, of a passage, and of postings",
    "Piece": "of a page, of a text, and of a rendered row",
    "Reading": "of a file, and of a text by a vocabulary",
    "Report": "of an evaluation, and of rows",
    "Stretch": "of a PDF's page, and of a text",
    "Styles": "of HTML, and of DOC",
    "Tally": "of indexing, and of asking",
    "Writer": "of a document, and of an index",
}
"""The class names that stand in several rooms, and what each means in them."""

HOMES = {
    "torch": {"training", "retrieval", "exporting"},
    "transformers": {"training", "exporting"},
    "tokenizers": {"tiny", "data", "retrieval"},
    "trl": {"training"},
    "peft": {"training", "exporting"},
    "bitsandbytes": {"training"},
    "accelerate": {"training"},
    "jsonschema": {"training", "sandbox"},
    "datasets": {"data"},
    "rensa": {"data", "retrieval"},
    "sentence_transformers": {"retrieval"},
    "onnx": {"retrieval", "exporting"},
    "onnxruntime": {"retrieval", "exporting", "onnx_model"},
    "openvino": {"retrieval"},
    "faiss": {"retrieval"},
    "tree_sitter": {"retrieval"},
    "ray": {"retrieval", "sweep", "training"},
    "pypdfium2": {"retrieval"},
    "selectolax": {"retrieval"},
    "python_calamine": {"retrieval"},
    "msoffcrypto": {"retrieval"},
    "olefile": {"retrieval"},
    "charset_normalizer": {"retrieval"},
    "ir_measures": {"retrieval"},
    "gguf": {"exporting"},
    "ik_llama_cpp": {"exporting"},
    "starlette": {"gateway", "app", "engine"},  # app/ is a web program too, and the engine has a server for ONNX
    "fastapi": {"gateway"},
    "uvicorn": {"gateway", "app", "engine"},
    "opentelemetry": {"gateway"},
    "redis": {"gateway"},
    "tensorboard": {"tracking"},
    "wandb": {"tracking"},
    "mlflow": {"tracking"},
    "trackio": {"tracking"},
    "optuna": {"sweep"},
    "gradio": {"app"},
    "vllm": set(),  # a process that engine/ starts; imported nowhere
}
"""Each heavy package's one home; `app` is the program outside src."""

ALLOWED = {
    ("tiny/tokenizer.py", "transformers"),  # writes the bundled model's tokenizer in transformers' format
    ("cli/check.py", "transformers"),  # loads a tokenizer without a model, and so without torch
    ("estimate/measure.py", "torch"),  # times a matrix product of this machine
    ("engine/onnx/__main__.py", "transformers"),  # a process of its own, which needs a tokenizer and its chat template
    ("engine/cpu_lora.py", "torch"),  # runs in vLLM's worker, which has it
    ("exporting/compressor_program.py", "datasets"),  # runs in the interpreter of llm-compressor, which has it
    ("training/quiet.py", "datasets"),  # switches off its progress bars
    ("retrieval/embedding/__init__.py", "transformers"),  # likewise, the bar that sentence_transformers would draw
    ("retrieval/search/rerank_model.py", "transformers"),  # likewise
    ("retrieval/embedding/general.py", "transformers"),  # likewise, the bar that sentence_transformers would draw
}
"""The exceptions, file by file, each with its reason."""

HEAVY = [*HOMES, "pandas", "numpy", "scipy", "matplotlib", "sklearn", "pyarrow", "playwright", "pydantic"]


def sources() -> list[Path]:
    return sorted(path for folder in (PACKAGE, ROOT / "app") for path in folder.rglob("*.py") if "_bundled" not in path.parts)


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every module that a file imports, at its top or inside a function, with the line; names of packages made absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level and room(path) == "app":
                continue  # the program's own modules: it is loaded from wherever it lies
            assert node.level == 0, f"{path}:{node.lineno}: a relative import; write it whole"
            module = node.module or ""
            if module == "llmbench":
                yield from ((f"llmbench.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def test_every_room_has_its_place_in_the_table() -> None:
    rooms = {room(path) for path in sources()} - {"app", "__init__"}
    assert rooms - set().union(*LAYERS) == set()


def test_imports_go_downwards_only() -> None:
    level = {name: height for height, line in enumerate(LAYERS) for name in line}
    wrong = []
    for path in sources():
        here = room(path)
        for module, line in imports(path):
            parts = module.split(".")
            if parts[0] != "llmbench" or len(parts) == 1 or here in ("app", "__init__"):
                continue
            if parts[1] != here and level[parts[1]] >= level[here]:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {module}")
    assert wrong == []


MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sources()
    if path.is_relative_to(PACKAGE)
}


@cache
def arrows(module: str) -> list[tuple[str, str, int]]:
    """The modules of this package that one imports, each with what it is asked of and the line.

    `from a import b` imports a.b of a where that is a module, else a of itself.
    """
    found = []
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [(alias.name, alias.name, node.lineno) for alias in node.names if alias.name in MODULES]
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((inner if inner in MODULES else node.module, node.module, node.lineno))
    return found


@cache
def face(package: str) -> list[str]:
    """The names in a package's `__all__`; none where it has no face."""
    for node in ast.parse(MODULES[package].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            names: list[str] = ast.literal_eval(node.value)
            return names
    return []


def room_of_retrieval(module: str) -> str:
    """`llmbench.retrieval.store.words.terms` -> store/words, `llmbench.retrieval.store.rows` -> store."""
    parts = module.split(".")[2:]
    rooms = {name for line in RETRIEVAL for name in line}
    return next((name for end in (2, 1) if (name := "/".join(parts[:end])) in rooms), parts[0] if parts else "__init__")


def test_no_circle_of_imports() -> None:
    """What only names a type counts too."""
    found = {module: sorted({there for there, _, _ in arrows(module)} - {module}) for module in MODULES}
    TopologicalSorter(found).prepare()  # raises CycleError, which names the circle


def test_rooms_are_entered_by_what_their_faces_name() -> None:
    """A name, or a module that is loaded when it is asked for. Rooms without a face are entered by their modules' own names."""
    found = set()
    for module, path in MODULES.items():
        for there, asked, _ in arrows(module):
            parts = there.split(".")
            if len(parts) < 3 or parts[1] in ("retrieval", room(path)) or parts[2] in face(".".join(parts[:2])):
                continue
            if asked != there and parts[-1] in face(asked):
                continue
            found.add((path.relative_to(PACKAGE).as_posix(), there.removeprefix("llmbench.")))
    assert found == DOORS


def test_the_app_takes_faces_and_values_only() -> None:
    """It is a program over the library, as its users' own are: nothing that begins with an underscore, no inner module."""
    taken = {
        module for path in sources() if room(path) == "app" for module, _ in imports(path) if module.startswith("llmbench")
    }
    assert taken == APP


def test_each_room_of_retrieval_imports_downwards_only() -> None:
    level = {name: height for height, line in enumerate(RETRIEVAL) for name in line}
    wrong = []
    for module in MODULES:
        if f"{module}.".startswith("llmbench.retrieval."):
            here = room_of_retrieval(module)
            wrong += [
                f"{MODULES[module].relative_to(ROOT)}:{line}: {here} imports {there}"
                for there, _, line in arrows(module)
                if there.startswith("llmbench.retrieval")
                if room_of_retrieval(there) != here and level[room_of_retrieval(there)] >= level[here]
            ]
    assert wrong == []


def place_in_training(module: str) -> str:
    """`llmbench.training.kernels.patches` -> kernels, `llmbench.training.job` -> job, `llmbench.training` -> __init__."""
    return (module.split(".")[2:] or ["__init__"])[0]


def test_each_room_of_training_imports_downwards_only() -> None:
    level = {name: height for height, line in enumerate(TRAINING) for name in line}
    inside = [module for module in MODULES if f"{module}.".startswith("llmbench.training.")]
    assert {place_in_training(module) for module in inside} == set(level)
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line}: {here} imports {there}"
        for module in inside
        for there, _, line in arrows(module)
        if f"{there}.".startswith("llmbench.training.")
        if (here := place_in_training(module)) != place_in_training(there) and level[place_in_training(there)] >= level[here]
    ]
    assert wrong == []


def test_rooms_of_retrieval_are_entered_by_their_faces() -> None:
    found = set()
    for module, path in MODULES.items():
        for there, asked, _ in arrows(module):
            package, _, name = there.rpartition(".")
            if MODULES[there].name == "__init__.py" or not f"{package}.".startswith("llmbench.retrieval."):
                continue
            named = asked == package and name in face(package)
            if face(package) and not named and not f"{module}.".startswith(f"{package}."):
                found.add((path.relative_to(PACKAGE).as_posix(), there.removeprefix("llmbench.")))
    assert found == INSIDE


@pytest.mark.parametrize("room", sorted(set().union(*RETRIEVAL) - {"__init__", "documents"}))
def test_a_face_of_retrieval_is_small_and_holds_no_job(room: str) -> None:
    package = "llmbench.retrieval." + room.replace("/", ".")
    tree = ast.parse(MODULES[package].read_text(encoding="utf-8"))
    assert all(isinstance(node, ast.Expr | ast.ImportFrom | ast.Assign) for node in tree.body)
    assert 0 < len(face(package)) <= (16 if room == "evaluation" else 8)


def test_a_class_name_is_unique_or_private() -> None:
    places: dict[str, list[str]] = {}
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name for name, found in places.items() if len(found) > 1} == set(SHARED)


def test_the_library_imports_nothing_from_the_top_folders() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {module}"
        for path in sources()
        for module, line in imports(path)
        if room(path) not in ("app",) and path != PACKAGE / "cli" / "app.py"
        if module.split(".")[0] in ("app", "recipes", "rag", "tests", "benchmarks")
    ]
    assert wrong == []


def test_each_heavy_package_has_one_home() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {room(path)} imports {module}"
        for path in sources()
        for module, line in imports(path)
        if (home := HOMES.get(package := module.split(".")[0])) is not None and room(path) not in home
        if (path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT).as_posix(), package) not in ALLOWED
    ]
    assert wrong == []


BANNED_CALLS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load"}


RUNS = {
    ("src/llmbench/sandbox/programs.py", "exec()")
}  # programs that models wrote, in a process that can do nothing but compute


def banned(node: ast.AST) -> str | None:
    """What a node does that no code of this project may do."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=name)) if f"{module}.{name}" in BANNED_CALLS:
            return f"{module}.{name}()"
        case ast.Call(func=ast.Name(id="eval" | "exec" as name)):
            return f"{name}()"
        case ast.keyword(arg="shell" | "allow_pickle" | "trust_remote_code" as name, value=ast.Constant(value=True)):
            return f"{name}=True"
        case ast.Import(names=names) if any(
            alias.name.split(".")[0] in ("pickle", "dill", "joblib", "shelve") for alias in names
        ):
            return "import of a pickle reader"
        case ast.ImportFrom(module="pickle" | "dill" | "joblib" | "shelve"):
            return "import of a pickle reader"
    return None


def test_nothing_that_runs_foreign_code_is_used() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', getattr(getattr(node, 'value', None), 'lineno', '?'))}: {what}"
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (what := banned(node)) and (path.relative_to(ROOT).as_posix(), what) not in RUNS
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "os.system('ls')", "yaml.load(text)", "torch.load(path)", "eval(text)", "run(text, shell=True)", "import pickle",
        "np.load(path, allow_pickle=True)", "from pickle import loads", "f(trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_ban_list_sees_what_it_bans(code: str) -> None:
    assert any(banned(node) for node in ast.walk(ast.parse(code)))


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["train", "--help"], ["check", "--help"], ["--version"], ["new"], ["no-such-verb"]]
)
def test_the_command_line_answers_without_a_heavy_package(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        f"sys.argv = {['llmbench', *arguments]!r}\n"
        "from llmbench.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stderr.splitlines()[-1]) == []
