"""A serving document in a container: what is mounted, what runs, and that the tools that read the files take them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from llmbench import containers, recipe
from llmbench.containers.needs import Device
from llmbench.errors import RecipeError
from llmbench.recipe import ServeRecipe


def needs(path: Path, *overrides: str, image: str | None = None, device: Device = "cpu") -> containers.Needs:
    return containers.needs(recipe.load(str(path), ServeRecipe, overrides), overrides, image=image, device=device)


def parts(text: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text))


@pytest.fixture
def document(tmp_path: Path) -> Path:
    folder = tmp_path / "my project"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "a.md").write_text("hello", encoding="utf-8")
    (folder / "pages.yaml").write_text("name: pages\ndocuments: [docs]\n", encoding="utf-8")
    path = folder / "Serve it.yaml"
    text = "variants:\n- {name: base}\n- {name: rag, rag: pages.yaml, system: 'Costs $5.'}\ngateway: {keys: true, port: 8123}\n"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_file_that_a_document_reads_is_named_once_and_nothing_else(document: Path, home: Path) -> None:
    found = needs(document)
    assert set(found.reads) == {document, document.parent / "pages.yaml", document.parent / "docs"}
    assert found.home == home and not found.downloads
    assert found.command == [
        "llmbench", "serve", str(document), "gateway.host=0.0.0.0", "gateway.port=8123"
    ]  # fmt: skip


def test_a_base_from_a_hub_is_said_to_be_downloaded(document: Path) -> None:
    assert needs(document, "model.model_name_or_path=org/model").downloads


def test_a_bundled_document_is_taken_from_the_image() -> None:
    found = containers.needs(
        recipe.load("recipes/serve.yaml", ServeRecipe, ["gateway.keys=true"]), ["gateway.keys=true"], image=None, device="cuda"
    )
    assert found.document == "bundled://recipes/serve.yaml" and found.reads == ()
    assert (found.image, found.name) == ("llmbench:cuda", "serve")


def test_a_server_that_everybody_could_ask_is_refused(document: Path) -> None:
    with pytest.raises(RecipeError, match="keys=true"):
        needs(document, "gateway.keys=false")


def test_a_secret_does_not_go_into_the_command_line(document: Path) -> None:
    with pytest.raises(RecipeError, match="Write it into the document"):
        needs(document, "gateway.api_key=secret")
    with pytest.raises(RecipeError, match="Write it into the document"):
        needs(document, "gateway={keys: true, api_key: secret}")


def test_a_text_that_looks_like_a_folder_is_not_mounted(document: Path) -> None:
    document.write_text("variants: [{name: base, system: /usr}]\ngateway: {keys: true}\n", encoding="utf-8")
    assert needs(document).reads == (document,)


@pytest.mark.parametrize("field", ["keys", "access_log", "capture.path"])
def test_a_file_that_the_container_could_not_write_is_refused(document: Path, field: str) -> None:
    given = [f"gateway.{field}={document.parent / 'file'}", *(["gateway.capture.consent=opt-in"] if "capture" in field else [])]
    with pytest.raises(RecipeError, match="name one in the workspace"):
        needs(document, *given)


def test_the_compose_service_has_the_document_closed_and_the_workspace_open(document: Path, home: Path) -> None:
    (content,) = parts(containers.compose(needs(document, image="registry/llmbench:1")))
    service = content["services"]["serve-it"]
    mounts = {mount["target"]: mount.get("read_only", False) for mount in service["volumes"]}
    assert mounts == {str(home): False} | dict.fromkeys(map(str, needs(document).reads), True)
    assert service["image"] == "registry/llmbench:1" and service["ports"] == ["8123:8123"]
    assert "deploy" not in service
    (content,) = parts(containers.compose(needs(document, device="cuda")))
    assert "gpu" in str(content["services"]["serve-it"]["deploy"])


def test_a_dollar_in_a_path_is_none_of_composes_variables(tmp_path: Path) -> None:
    path = tmp_path / "cheap $HOME.yaml"
    path.write_text("variants: [{name: base}]\ngateway: {keys: true}\n", encoding="utf-8")
    (content,) = parts(containers.compose(needs(path)))
    assert content["services"]["cheap--home"]["command"][2] == str(path).replace("$", "$$")


def test_the_deployment_mounts_the_document_from_its_secret(document: Path) -> None:
    secret, claim, deployment, service = parts(containers.kubernetes(needs(document, device="cuda")))
    assert [one["kind"] for one in (secret, claim, deployment, service)] == [
        "Secret", "PersistentVolumeClaim", "Deployment", "Service"
    ]  # fmt: skip
    assert secret["stringData"]["document.yaml"] == document.read_text(encoding="utf-8")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[str(document)]["name"] == "document"
    assert {volume["name"] for volume in pod["volumes"]} == {mount["name"] for mount in mounts.values()}
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 1}
    wide = containers.kubernetes(needs(document, "engine.tensor_parallel_size=4", device="cuda"))
    assert "nvidia.com/gpu: 4" in wide
    assert pod["terminationGracePeriodSeconds"] > 8
    selected = service["spec"]["selector"].items()
    assert selected <= deployment["spec"]["template"]["metadata"]["labels"].items()


def test_a_probe_comes_by_a_name_that_the_gateway_answers_to(document: Path) -> None:
    found = needs(document, "gateway.allowed_hosts=[models.example.org]")
    *_, deployment, _ = parts(containers.kubernetes(found))
    probe = deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]
    assert probe["httpHeaders"] == [{"name": "Host", "value": "models.example.org"}]
    assert "models.example.org" in found.probe[-1]
    compile(found.probe[-1], "probe", "exec")


def test_composes_own_validator_takes_the_file(document: Path) -> None:
    plugin = shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    command = ["docker", "compose"] if plugin else [shutil.which("docker-compose") or ""]
    if not command[0]:
        pytest.skip("there is no docker compose here")
    for device in ("cpu", "cuda"):
        file = document.with_name(f"{device}.yaml")
        file.write_text(containers.compose(needs(document, device=device)), encoding="utf-8")
        done = subprocess.run([*command, "-f", str(file), "config"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_kubernetes_own_schemas_take_the_manifests(document: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="108 MB of schemas: pip install kubernetes-validate")
    for device in ("cpu", "cuda"):
        for part in parts(containers.kubernetes(needs(document, device=device))):
            validate.validate(part, validate.latest_version(), strict=True)
