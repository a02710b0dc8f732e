"""Read from the source: nothing here unpickles, evaluates or hands text to a shell, and every loader is told whom to trust."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for folder in ("src", "app") for path in (ROOT / folder).rglob("*.py") if "_bundled" not in path.parts)

MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "pickletools", "jsonpickle"}
CALLS = {
    "eval", "exec", "os.system", "os.popen", "os.execl", "os.execv", "os.spawnl", "subprocess.getoutput",
    "subprocess.getstatusoutput", "torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "yaml.full_load", "yaml.full_load_all", "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "pandas.read_pickle",
    "pd.read_pickle", "tarfile.open", "shutil.unpack_archive", "tempfile.mktemp", "jinja2.Environment", "jinja2.Template",
}  # fmt: skip
ALLOWED: dict[tuple[str, str], str] = {
    ("src/llmbench/sandbox/programs.py", "exec"): "a program that a model wrote, behind a filter of system calls",
    ("src/llmbench/borrowed.py", "importlib.import_module of a name that is computed"): "modules that the registers name",
}
"""(file, what) -> the reason."""

LOADERS = {
    "from_pretrained": ("trust_remote_code",),
    "SentenceTransformer": ("trust_remote_code",),
    "CrossEncoder": ("trust_remote_code",),
    "snapshot_download": ("revision",),
    "hf_hub_download": ("revision",),
    "load_dataset": ("revision",),
}
"""What loads from a folder or the hub, and what each call has to say openly."""
NOTHING_TO_TRUST = {"PeftModel", "PeftConfig", "GenerationConfig"}
"""Classes whose from_pretrained runs no code of the folder, so that there is nothing to say."""


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute; `?` stands for what is computed."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attr):
            return f"{dotted(value)}.{attr}"
    return "?"


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """What a file does that no code of this project may do, with the line."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names if alias.name.split(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in MODULES:
                yield node.lineno, module
            case ast.Call(func=function, keywords=keywords):
                name = dotted(function)
                given = {keyword.arg: keyword.value for keyword in keywords}
                if name in CALLS:
                    yield node.lineno, name
                if (
                    name.split(".")[-1] == "load"
                    and name.split(".")[0] in ("np", "numpy")
                    and not _is(given.get("allow_pickle"), False)
                ):
                    yield node.lineno, f"{name} without allow_pickle=False"
                for flag in ("shell", "allow_pickle", "trust_remote_code", "weights_only"):
                    if flag in given and _is(given[flag], flag != "weights_only"):
                        yield node.lineno, f"{flag}={flag != 'weights_only'}"
                if name.split(".")[-1] in ("__import__", "import_module") and not isinstance(
                    node.args[0], ast.Constant | ast.JoinedStr
                ):
                    yield node.lineno, f"{name} of a name that is computed"


def unsaid(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls of loaders that leave out whom they trust, or which revision they mean."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        *owner, name = dotted(node.func).split(".")
        if name not in LOADERS or (owner and owner[-1] in NOTHING_TO_TRUST):
            continue
        given = {keyword.arg for keyword in node.keywords}
        for needed in LOADERS[name]:
            if needed not in given:
                yield node.lineno, f"{name} without {needed}"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_foreign_code(path: Path) -> None:
    place = path.relative_to(ROOT).as_posix()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [f"{place}:{line}: {what}" for line, what in faults(tree) if (place, what) not in ALLOWED]
    wrong += [f"{place}:{line}: {what}" for line, what in unsaid(tree)]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from marshal import loads", "import joblib.numpy_pickle", "torch.load(p)", "np.load(p)",
        "np.load(p, allow_pickle=True)", "yaml.load(t)", "yaml.full_load(t)", "subprocess.run(c, shell=True)",
        "os.system(c)", "eval(t)", "exec(t)", "f(trust_remote_code=True)", "torch.load(p, weights_only=False)",
        "importlib.import_module(recipe.name)", "pd.read_pickle(p)",
    ],
)  # fmt: skip
def test_the_list_sees_what_it_bans(code: str) -> None:
    assert list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["np.load(p, allow_pickle=False)", "json.load(f)", "yaml.safe_load(t)", "subprocess.run(['a'])", "copy(model).eval()"],
)
def test_the_list_leaves_alone_what_is_harmless(code: str) -> None:
    assert not list(faults(ast.parse(code)))


@pytest.mark.parametrize(
    "code", ["AutoModel.from_pretrained(p)", "snapshot_download(n)", "load_dataset(n)", "SentenceTransformer(p)"]
)
def test_a_loader_that_says_nothing_is_seen(code: str) -> None:
    assert list(unsaid(ast.parse(code)))
    assert not list(unsaid(ast.parse("PeftModel.from_pretrained(p)")))


def test_the_continuous_integration_gives_no_secret_to_a_stranger() -> None:
    """`pull_request_target` runs a stranger's change with the project's own rights."""
    files = [
        path
        for name in (".ci", ".github", ".gitlab-ci.yml")
        for path in [ROOT / name, *(ROOT / name).rglob("*")]
        if path.is_file()
    ]
    assert not [path for path in files if "pull_request_target" in path.read_text(encoding="utf-8", errors="replace")]


def test_no_document_tells_to_pipe_a_download_into_a_shell() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.yaml")]
    assert not [
        path for path in documents for line in path.read_text(encoding="utf-8").splitlines()
        if ("curl" in line or "wget" in line) and "| sh" in line.replace("bash", "sh")
    ]  # fmt: skip
