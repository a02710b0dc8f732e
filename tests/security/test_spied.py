"""Every call that loads a model, a tokenizer or a download is written down, and says the recipe's own trust and revision.

The methods of the libraries are wrapped: what the project's code calls is recorded and then done. What a library calls
inside such a call is its own affair and is not counted.
"""

from __future__ import annotations

import functools
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmbench import recipe
from llmbench.recipe import EmbedderSpec, ServeRecipe, TrainRecipe

from ..training.conftest import write_recipe

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Spy:
    """The outermost calls: name -> each call's place or name, and its keywords."""

    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    depth: int = 0

    def watch(self, patch: pytest.MonkeyPatch, owner: Any, name: str, label: str) -> None:
        """Wraps one function, method or constructor."""
        original = owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name)
        inner = original.__func__ if isinstance(original, classmethod) else original

        @functools.wraps(inner)
        def noting(*args: Any, **kwargs: Any) -> Any:
            if not self.depth:
                what = args[1] if isinstance(owner, type) else args[0]
                self.calls.append((label, str(what), kwargs))
            self.depth += 1
            try:
                return inner(*args, **kwargs)
            finally:
                self.depth -= 1

        patch.setattr(owner, name, classmethod(noting) if isinstance(original, classmethod) else noting)

    def named(self, label: str) -> list[tuple[str, dict[str, Any]]]:
        return [(what, kwargs) for name, what, kwargs in self.calls if name == label]


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Spy:
    import datasets  # type: ignore[import-untyped]
    import huggingface_hub
    import peft
    import sentence_transformers
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedModel
    from transformers.models.auto import auto_factory

    spy = Spy()
    for owner, label in (
        (auto_factory._BaseAutoModelClass, "model"), (AutoTokenizer, "tokenizer"), (AutoConfig, "config"),
        (PreTrainedModel, "model"), (GenerationConfig, "generation"), (peft.PeftModel, "peft"),
    ):  # fmt: skip
        spy.watch(monkeypatch, owner, "from_pretrained", label)
    spy.watch(monkeypatch, huggingface_hub, "snapshot_download", "download")
    spy.watch(monkeypatch, huggingface_hub, "hf_hub_download", "download")
    spy.watch(monkeypatch, datasets, "load_dataset", "dataset")
    spy.watch(monkeypatch, sentence_transformers.SentenceTransformer, "__init__", "embedder")
    return spy


@pytest.fixture
def cache(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache that holds `somebody/tiny` and an embedder at one commit, which is no branch's; the hub is out of reach."""
    from huggingface_hub import constants

    from llmbench.retrieval.embedding import locate

    hub = tmp_path / "hub"
    for name, source in (("tiny", tiny), ("embedder", locate("all-MiniLM-L6-v2"))):
        shutil.copytree(source, hub / f"models--somebody--{name}" / "snapshots" / COMMIT)
        (hub / f"models--somebody--{name}" / "refs").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return hub


@pytest.fixture
def hub_recipe(tmp_path: Path) -> Any:
    def made(*overrides: str) -> TrainRecipe:
        return write_recipe(tmp_path, "spied", "model.model_name_or_path=somebody/tiny", f"model.revision={COMMIT}", *overrides)

    return made


@pytest.mark.parametrize("trust", [False, True])
def test_training_trusts_as_far_as_its_recipe(cache: Path, spy: Spy, hub_recipe: Any, trust: bool) -> None:
    from llmbench import runs, training

    document = hub_recipe(f"model.trust_remote_code={trust}".lower(), "training.max_steps=1", "data.eval_fraction=0.1")
    run = runs.create(document)
    training.train(document, run)
    [(name, download)] = spy.named("download")
    assert (name, download["revision"]) == ("somebody/tiny", COMMIT)
    assert ("*.py" in download["allow_patterns"]) == trust
    loads = spy.named("model") + spy.named("tokenizer") + spy.named("config")
    assert len(loads) >= 2
    for place, kwargs in loads:
        assert kwargs["trust_remote_code"] is trust
        assert COMMIT in place  # the folder of that very revision
    assert all(kwargs["use_safetensors"] is True for _, kwargs in spy.named("model"))
    assert run.lock["model"]["revision"] == COMMIT


def test_a_tokenizer_of_its_own_is_trusted_no_further(spy: Spy, tmp_path: Path, tiny: Path) -> None:
    from llmbench.training.loading.model import load_model

    load_model(write_recipe(tmp_path, "spied", f"model.tokenizer={tiny}"))
    [(place, kwargs)] = spy.named("tokenizer")
    assert (place, kwargs["trust_remote_code"]) == (str(tiny), False)
    assert not spy.named("download")


@pytest.mark.parametrize("trust", [False, True])
def test_serving_hands_on_trust_and_revision_as_they_stand(cache: Path, spy: Spy, tmp_path: Path, trust: bool) -> None:
    from llmbench.engine import admission
    from llmbench.engine.command import command

    path = tmp_path / "serve.yaml"
    model = {"model_name_or_path": "somebody/tiny", "revision": COMMIT, "trust_remote_code": trust}
    path.write_text(json.dumps({"model": model, "variants": [{"name": "base"}]}), encoding="utf-8")
    document = recipe.load(path, ServeRecipe)
    adapters = admission.admit_all(document)
    [(name, kwargs)] = spy.named("download")
    assert (name, kwargs["revision"], kwargs["local_files_only"]) == ("somebody/tiny", COMMIT, True)
    argv = command(document, adapters, tmp_path / "socket", python=Path("python"), device="cpu")
    assert argv[argv.index("--revision") + 1] == COMMIT
    assert ("--trust-remote-code" in argv) is trust
    assert not {"--enable-prompt-embeds", "--middleware", "--hf-overrides"} & set(argv)


@pytest.mark.parametrize("light", [True, False])
def test_an_index_trusts_nobody(cache: Path, spy: Spy, light: bool) -> None:
    """A plain encoder is loaded by nobody's code but ours; another one by sentence_transformers, which is told what it may."""
    from llmbench.retrieval.embedding import Embedder

    if not light:
        pooling = cache / "models--somebody--embedder" / "snapshots" / COMMIT / "1_Pooling" / "config.json"
        pooling.write_text(json.dumps({"word_embedding_dimension": 384, "pooling_mode": "weightedmean"}), encoding="utf-8")
    embedder = Embedder(EmbedderSpec(model_name_or_path="somebody/embedder", revision=COMMIT))
    embedder.embed(["a text"])  # loaded twice where bfloat16 is compared with float32
    [(name, download)] = spy.named("download")
    assert (name, download["revision"]) == ("somebody/embedder", COMMIT)
    if light:
        assert not spy.named("embedder") + spy.named("model") + spy.named("tokenizer")
        return
    loaded = spy.named("embedder")
    assert loaded
    for place, kwargs in loaded:
        assert COMMIT in place and kwargs["trust_remote_code"] is False and kwargs["local_files_only"] is True


def test_a_comparison_loads_nothing() -> None:
    """It talks to an endpoint, whatever it compares."""
    import ast

    import llmbench.compare

    for path in Path(str(llmbench.compare.__file__)).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
            names |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
            assert not {name.split(".")[0] for name in names} & {"transformers", "huggingface_hub", "datasets", "torch", "peft"}
