"""Models that cannot be had: one line, at once."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from llmbench import hardware
from llmbench.errors import LlmbenchError, RecipeError
from llmbench.recipe import ModelSpec

from .conftest import Write


@pytest.fixture
def hub_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub whose port nobody listens on."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


@pytest.mark.usefixtures("hub_is_away")
@pytest.mark.parametrize("name", ["nobody/no-such-model", "gpt-none"])
def test_a_hub_model_that_cannot_be_reached_is_one_line(name: str) -> None:
    from llmbench.training.loading.model import local_folder

    with pytest.raises(LlmbenchError) as caught:
        local_folder(ModelSpec(model_name_or_path=name))
    assert str(caught.value) == (
        f"{name}: no such folder, not in the cache, and http://127.0.0.1:9 cannot be reached. "
        "Check the network or the name, or use model.model_name_or_path=llmbench/tiny"
    )


class Hub(BaseHTTPRequestHandler):
    """A hub on this machine with one model, `someone/small`, as the real one answers for it."""

    folder: Path
    commit = "0123456789abcdef0123456789abcdef01234567"
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith("/api/models/someone/small"):
            names = [*sorted(p.name for p in self.folder.iterdir()), "pytorch_model.bin", "original/model.safetensors"]
            if "/tree/" in path:
                tree = [{"type": "file", "path": name, "size": 1, "oid": f"{i:040}"} for i, name in enumerate(names)]
                return self.send(200, json.dumps(tree).encode(), {}, body)
            info = {"id": "someone/small", "sha": self.commit, "siblings": [{"rfilename": name} for name in names]}
            return self.send(200, json.dumps(info).encode(), {}, body)
        file = self.folder / path.rpartition("/")[2]
        if path.startswith(f"/someone/small/resolve/{self.commit}/") and file.is_file():
            self.asked.append(file.name)
            data = file.read_bytes()
            etag = f'"{hashlib.sha256(data).hexdigest()}"'
            return self.send(200, data, {"X-Repo-Commit": self.commit, "ETag": etag}, body)
        self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """The local hub with the bundled model, and an empty cache."""
    from huggingface_hub import constants

    Hub.folder, Hub.asked = tiny, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "*")
        yield Hub
        server.shutdown()


def test_a_hub_model_is_downloaded_once_and_kept_by_its_commit(
    hub: type[Hub], tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    from llmbench.training.loading.model import local_folder

    folder = local_folder(ModelSpec(model_name_or_path="someone/small"))
    assert folder.name == hub.commit
    assert (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()
    assert not {"pytorch_model.bin"} & {path.name for path in folder.iterdir()} and not (folder / "original").exists()
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert local_folder(ModelSpec(model_name_or_path="someone/small")) == folder


def test_a_model_that_the_hub_does_not_have_is_one_line(hub: type[Hub]) -> None:
    from llmbench.training.loading.model import local_folder

    with pytest.raises(LlmbenchError, match=r"nobody/none is neither a folder nor a model on http://127"):
        local_folder(ModelSpec(model_name_or_path="nobody/none"))


def test_a_folder_that_is_not_there_is_not_looked_up_on_the_hub(tmp_path: Path) -> None:
    from llmbench.training.loading.model import local_folder

    with pytest.raises(LlmbenchError, match="there is no folder"):
        local_folder(ModelSpec(model_name_or_path=str(tmp_path / "none")))
    with pytest.raises(LlmbenchError, match="there is no folder"):
        local_folder(ModelSpec(model_name_or_path="./none"))


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    from llmbench.training.loading.model import local_folder

    with pytest.raises(LlmbenchError, match=r"is a folder without config.json"):
        local_folder(ModelSpec(model_name_or_path=str(tmp_path)))


def test_pickled_weights_are_not_opened(tmp_path: Path, tiny: Path, write: Write) -> None:
    from llmbench.training.loading.model import load_model

    folder = tmp_path / "pickled"
    shutil.copytree(tiny, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(LlmbenchError, match="is a pickle, which can run code") as caught:
        load_model(write("pickled", f"model.model_name_or_path={folder}"))
    assert "safetensors" in str(caught.value)


def test_a_model_of_an_unknown_kind_is_one_line(tmp_path: Path, tiny: Path, write: Write) -> None:
    from llmbench.training.loading.model import load_model

    folder = tmp_path / "unknown"
    shutil.copytree(tiny, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nonesuch"}), encoding="utf-8")
    with pytest.raises(
        LlmbenchError, match=f"{folder.name}: nonesuch is not a decoder that this version of transformers knows"
    ) as caught:
        load_model(write("unknown", f"model.model_name_or_path={folder}"))
    assert "\n" not in str(caught.value)


def test_a_recipe_that_asks_for_a_gpu_where_there_is_none() -> None:
    import torch

    from llmbench.training.loading.model import device_of

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(RecipeError, match=r"model.device: cuda, but torch sees no NVIDIA GPU\. Use model\.device=auto"):
        device_of(ModelSpec(device="cuda"))


def test_a_target_that_the_model_does_not_have_is_named(write: Write) -> None:
    from llmbench.training.loading.model import load_model

    with pytest.raises(RecipeError, match=r"lora.target_modules: .*nonesuch"):
        load_model(write("target", "lora.target_modules=[nonesuch]"))


def test_float16_is_not_for_a_cpu(write: Write) -> None:
    from llmbench.training.loading.model import load_model

    with pytest.raises(RecipeError, match="training in float16 does not work on a CPU"):
        load_model(write("half", "model.dtype=float16", "model.device=cpu"))


def test_auto_takes_bfloat16_only_where_the_processor_is_faster_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from llmbench.training.loading.model import computation_dtype

    for pays, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(hardware, "bfloat16_pays", lambda pays=pays: pays)
        assert hardware.machine("cpu").bfloat16 is pays
        assert computation_dtype(ModelSpec(), "cpu") == dtype
    assert computation_dtype(ModelSpec(dtype="float32"), "cpu") == torch.float32


def test_frozen_weights_take_the_computations_precision_and_trained_ones_float32(write: Write) -> None:
    import torch

    from llmbench.training.loading.model import load_model

    loaded = load_model(write("precision", "model.dtype=bfloat16"))
    kinds = {(p.requires_grad, p.dtype) for p in loaded.model.parameters()}
    assert kinds == {(False, torch.bfloat16), (True, torch.float32)}
    assert all("lora_" in name for name, p in loaded.model.named_parameters() if p.requires_grad)


def test_all_parameters_are_trained_without_lora(write: Write) -> None:
    import torch

    from llmbench.training.loading.model import load_model

    loaded = load_model(write("full", "model.dtype=bfloat16", lora=None))
    assert {(p.requires_grad, p.dtype) for p in loaded.model.parameters()} == {(True, torch.float32)}
