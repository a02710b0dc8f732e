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

SHAPES: tuple[tuple[Device, int], ...] = (("cpu", 0), ("cuda", 0), ("cpu", 2), ("cuda", 2))
"""What a container computes on, and how many engines have one of their own."""


def needs(path: Path, *overrides: str, image: str | None = None, device: Device = "cpu", engines: int = 0) -> containers.Needs:
    document = recipe.load(str(path), ServeRecipe, overrides)
    return containers.needs(document, overrides, image=image, device=device, engines=engines)


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
    assert found.command() == [
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
    text = containers.kubernetes(needs(document, device="cuda"))
    claim, deployment, service = parts(text)
    assert [one["kind"] for one in (claim, deployment, service)] == ["PersistentVolumeClaim", "Deployment", "Service"]
    assert f"kubectl create secret generic serve-it-document --from-file=document.yaml='{document}'" in text
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts[str(document)]["name"] == "document"
    assert {"name": "document", "secret": {"secretName": "serve-it-document", "defaultMode": 0o440}} in pod["volumes"]
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
    assert "models.example.org" in found.probe()[-1]
    compile(found.probe()[-1], "probe", "exec")


@pytest.fixture
def shared(document: Path) -> Path:
    """A document with keys for its engines and its clients."""
    text = document.read_text(encoding="utf-8").replace("keys: true", "api_key: sesame-clients")
    document.write_text(text + "engine: {api_key: sesame-engines}\n", encoding="utf-8")
    return document


def test_engines_are_services_that_the_gateway_waits_for_and_asks(shared: Path, home: Path) -> None:
    text = containers.compose(needs(shared, "parity=off", engines=2))
    (content,) = parts(text)
    gateway, *engines = content["services"].values()
    names = list(content["services"])[1:]
    assert names == ["serve-it-engine-1", "serve-it-engine-2"] and "sesame" not in text
    assert gateway["command"][-1] == "engine.urls=[http://serve-it-engine-1:8001, http://serve-it-engine-2:8001]"
    asked = recipe.load(str(shared), ServeRecipe, gateway["command"][3:])
    assert asked.engine.urls == [f"http://{name}:8001" for name in names]
    assert gateway["depends_on"] == {name: {"condition": "service_healthy"} for name in names}
    for engine in engines:
        words = ["llmbench", "serve", str(shared), "parity=off", "--engine-only", "--listen", "0.0.0.0:8001"]
        assert engine["command"] == words and "ports" not in engine and "deploy" not in engine
        assert "127.0.0.1:8001/health" in engine["healthcheck"]["test"][-1]
        compile(engine["healthcheck"]["test"][-1], "probe", "exec")
        assert engine["volumes"] == gateway["volumes"]


def test_engines_on_one_machine_have_gpus_of_their_own(shared: Path) -> None:
    found = needs(shared, "engine.tensor_parallel_size=2", device="cuda", engines=2)
    (content,) = parts(containers.compose(found))
    gateway, *engines = content["services"].values()
    devices = [one["deploy"]["resources"]["reservations"]["devices"][0] for one in engines]
    assert "deploy" not in gateway and [one["device_ids"] for one in devices] == [["0", "1"], ["2", "3"]]


def test_engines_are_a_stateful_set_whose_pods_the_gateway_asks_by_name(shared: Path) -> None:
    text = containers.kubernetes(needs(shared, device="cuda", engines=3))
    claim, headless, engines, policy, deployment, service = parts(text)
    kinds = [one["kind"] for one in (claim, headless, engines, policy, deployment, service)]
    assert kinds == ["PersistentVolumeClaim", "Service", "StatefulSet", "NetworkPolicy", "Deployment", "Service"]
    assert "sesame" not in text and claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (gateway,) = deployment["spec"]["template"]["spec"]["containers"]
    (engine,) = engines["spec"]["template"]["spec"]["containers"]
    name = engines["metadata"]["name"]
    assert engines["spec"]["replicas"] == 3 and engines["spec"]["serviceName"] == headless["metadata"]["name"] == name
    asked = recipe.load(str(shared), ServeRecipe, gateway["command"][3:])
    assert asked.engine.urls == [f"http://{name}-{number}.{name}:8001" for number in range(3)]
    assert headless["spec"]["clusterIP"] == "None" and headless["spec"]["ports"][0]["port"] == 8001
    assert engine["command"][-3:] == ["--engine-only", "--listen", "0.0.0.0:8001"]
    assert engine["readinessProbe"]["httpGet"] == {"path": "/health", "port": "http"}
    assert engine["resources"]["limits"] == {"nvidia.com/gpu": 1} and "resources" not in gateway
    pods, clients = engines["spec"]["template"]["metadata"]["labels"], deployment["spec"]["template"]["metadata"]["labels"]
    for selector in (headless["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]):
        assert selector.items() <= pods.items() and not selector.items() <= clients.items()
    assert not service["spec"]["selector"].items() <= pods.items(), "clients would reach the engines"
    (allowed,) = policy["spec"]["ingress"]
    assert allowed["from"][0]["podSelector"]["matchLabels"] == clients


def test_a_document_that_names_just_these_engines_is_left_to_say_so(shared: Path) -> None:
    named = ["engine.urls=[http://serve-it-engine-2:8001, http://serve-it-engine-1:8001]"]
    text = shared.read_text(encoding="utf-8")
    shared.write_text(text.replace("engine: {", f"engine: {{urls: {named[0].removeprefix('engine.urls=')}, "), encoding="utf-8")
    (content,) = parts(containers.compose(needs(shared, engines=2)))
    assert not any("urls" in word for word in content["services"]["serve-it"]["command"])


def test_engines_that_anybody_could_ask_are_refused(document: Path) -> None:
    with pytest.raises(RecipeError, match=r"set engine\.api_key in the document"):
        needs(document, engines=2)


def test_the_longest_name_still_names_engines(tmp_path: Path) -> None:
    path = tmp_path / f"{'long-' * 20}.yaml"
    path.write_text("variants: [{name: base}]\ngateway: {keys: true}\nengine: {api_key: sesame}\n", encoding="utf-8")
    names = [one["metadata"]["name"] for one in parts(containers.kubernetes(needs(path, engines=2)))]
    assert max(map(len, names)) <= 63 and len(names[2]) <= 52


def test_engines_elsewhere_are_named_with_how_to_have_them_here(document: Path) -> None:
    found = needs(document, "engine.urls=[http://10.0.0.2:8001, http://10.0.0.3:8001]", device="cuda")
    for text in (containers.compose(found), containers.kubernetes(found)):
        assert "# Its engines run elsewhere: http://10.0.0.2:8001, http://10.0.0.3:8001. " in text and "--engines 2" in text
        assert "gpu" not in text.replace("docker/Dockerfile", "")


def test_composes_own_validator_takes_the_file(shared: Path) -> None:
    plugin = shutil.which("docker") and not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    command = ["docker", "compose"] if plugin else [shutil.which("docker-compose") or ""]
    if not command[0]:
        pytest.skip("there is no docker compose here")
    for device, engines in SHAPES:
        file = shared.with_name("compose.yaml")
        file.write_text(containers.compose(needs(shared, device=device, engines=engines)), encoding="utf-8")
        done = subprocess.run([*command, "-f", str(file), "config"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_kubernetes_own_schemas_take_the_manifests(shared: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="108 MB of schemas: pip install kubernetes-validate")
    for device, engines in SHAPES:
        for part in parts(containers.kubernetes(needs(shared, device=device, engines=engines))):
            validate.validate(part, validate.latest_version(), strict=True)
