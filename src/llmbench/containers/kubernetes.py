"""Kubernetes manifests: a Secret with the document, a claim for its files, a Deployment of one replica and a Service.

One replica: vLLM, its adapters and the ledger of keys belong to one gateway. A newer one starts after the older has ended.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from llmbench.containers.needs import Needs
from llmbench.containers.text import dump
from llmbench.errors import RecipeError

__all__ = ["kubernetes"]

_HEAD = """\
# Serves {document} on Kubernetes. It holds the document, and with it its secrets: keep it private.
#   kubectl apply -f FILE
#   kubectl rollout status deployment/{name}
# The image {image} is built from docker/Dockerfile.{device}; push it where the cluster finds it (`--image`).
# Before the first start, copy the workspace and the files that the document reads into the claim, each under its own path:
{copies}
# where POD is any pod that has the claim {name}-data at /data, such as the one that this makes:
#   kubectl run {name}-copy --image=busybox --overrides='{overrides}' -- sleep 3600
"""
_KEY = "document.yaml"
_COPY_POD = (
    '{{"spec":{{"containers":[{{"name":"copy","image":"busybox","command":["sleep","3600"],'
    '"volumeMounts":[{{"name":"data","mountPath":"/data"}}]}}],'
    '"volumes":[{{"name":"data","persistentVolumeClaim":{{"claimName":"{claim}"}}}}]}}}}'
)


def kubernetes(found: Needs, *, size: str = "50Gi") -> str:
    """The manifests' text, several YAML documents.

    Args:
        found: what the container needs.
        size: of the claim for the workspace and the files that are read.

    Raises:
        RecipeError: the document cannot be read.
    """
    name = found.name
    labels = {"app.kubernetes.io/name": "llmbench", "app.kubernetes.io/instance": name}
    own = None if found.document.startswith("bundled://") else Path(found.document)
    parts: list[dict[str, Any]] = []
    if own is not None:
        parts.append(_object("v1", "Secret", f"{name}-document", labels) | {"type": "Opaque", "stringData": {_KEY: _text(own)}})
    parts.append(
        _object("v1", "PersistentVolumeClaim", f"{name}-data", labels)
        | {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}}
    )
    parts.append(_deployment(found, name, labels, own))
    service = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    parts.append(_object("v1", "Service", name, labels) | {"spec": service})
    head = _HEAD.format(
        document=found.document, name=name, image=found.image, device=found.device, copies=_copies(found, own),
        overrides=_COPY_POD.format(claim=f"{name}-data"),
    )  # fmt: skip
    return head + dump(parts)


def _deployment(found: Needs, name: str, labels: dict[str, str], own: Path | None) -> dict[str, Any]:
    header = [{"name": "Host", "value": found.host}] if found.host else []

    def probe(path: str, **times: int) -> dict[str, Any]:
        get = {"path": path, "port": "http"} | ({"httpHeaders": header} if header else {})
        return {"httpGet": get, "timeoutSeconds": 10} | times

    mounts: list[dict[str, Any]] = [{"name": "data", "mountPath": str(found.home), "subPath": _inside(found.home)}]
    for path in found.reads:
        if own is not None and path == own:
            mounts.append({"name": "document", "mountPath": str(path), "subPath": _KEY, "readOnly": True})
        else:
            mounts.append({"name": "data", "mountPath": str(path), "subPath": _inside(path), "readOnly": True})
    if own is not None and own not in found.reads:  # in a folder that is mounted, or in the workspace
        mounts.append({"name": "document", "mountPath": str(own), "subPath": _KEY, "readOnly": True})
    mounts += [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": f"{name}-data"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
    ]
    if own is not None:
        volumes.append({"name": "document", "secret": {"secretName": f"{name}-document", "defaultMode": 0o440}})
    environment = {"LLMBENCH_HOME": str(found.home), "HOME": "/tmp"}  # noqa: S108 - the container's own
    token: list[dict[str, Any]] = []
    if found.downloads:
        environment["HF_HOME"] = str(found.home / "huggingface")
        secret = {"name": "huggingface", "key": "token", "optional": True}
        token.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})
    container: dict[str, Any] = {
        "name": "llmbench",
        "image": found.image,
        "command": found.command,
        "env": [{"name": key, "value": value} for key, value in environment.items()] + token,
        "ports": [{"name": "http", "containerPort": found.port}],
        "startupProbe": probe("/ready", periodSeconds=10, failureThreshold=-(-found.start_seconds // 10)),
        "readinessProbe": probe("/ready", periodSeconds=10, failureThreshold=2),
        # As long as a start takes: the gateway starts vLLM again by itself, and is not well meanwhile.
        "livenessProbe": probe("/health", periodSeconds=20, failureThreshold=-(-found.start_seconds // 20)),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    if found.device == "cuda":
        container["resources"] = {"limits": {"nvidia.com/gpu": found.gpus}}
    pod = {
        "terminationGracePeriodSeconds": found.stop_seconds,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "runAsGroup": 1000,
            "fsGroup": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    return _object("apps/v1", "Deployment", name, labels) | {"spec": spec}


def _object(version: str, kind: str, name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}}


def _copies(found: Needs, own: Path | None) -> str:
    """The commands that fill the claim, as comments."""
    paths = [found.home, *(path for path in found.reads if path != own)]
    lines = []
    for path in paths:
        target = f"/data/{_inside(path)}"
        made = f"kubectl exec POD -- mkdir -p {shlex.quote(str(Path(target).parent))}"
        lines.append(f"#   {made} && kubectl cp {shlex.quote(str(path))} {shlex.quote(f'POD:{target}')}")
    return "\n".join(lines)


def _inside(path: Path) -> str:
    """Where a file lies in the claim: under its own path."""
    return str(path).lstrip("/")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror})") from error
