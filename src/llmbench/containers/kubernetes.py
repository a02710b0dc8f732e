"""Kubernetes manifests: a claim for files, a Deployment of one gateway and a Service; engines of their own as a StatefulSet.

One gateway, as the ledger of keys belongs to it, and vLLM where it starts one. A newer one starts after the older has ended.
The document holds keys, so it is a Secret that a command makes, and no manifest holds a secret.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from llmbench.containers.needs import ENGINE_PORT, Needs
from llmbench.containers.text import dump, label

__all__ = ["kubernetes"]

_HEAD = """\
# Serves {document} on Kubernetes{engines}.
{secret}#   kubectl apply -f FILE
#   kubectl rollout status deployment/{name}
# The image {image} is built from docker/Dockerfile.{device}; push it where the cluster finds it (`--image`).
# Before the first start, copy the workspace and the files that the document reads into the claim, each under its own path:
{copies}
# where POD is any pod that has the claim {name}-data at /data, such as the one that this makes:
#   kubectl run {name}-copy --image=busybox --overrides='{overrides}' -- sleep 3600
"""
_DOCUMENT = """\
# The document holds the keys and stays out of this file. Put it into the cluster first, and again after each change of it:
#   kubectl create secret generic {name}-document --from-file={key}={path} --dry-run=client --output=yaml | kubectl apply -f -
"""
_ELSEWHERE = "# Its engines run elsewhere: {urls}. For pods of their own here, add --engines {count}.\n"
_KEY = "document.yaml"
_STEM = 40
"""Letters of a document's name in that of its engines: a StatefulSet's has at most 52."""
_COPY_POD = (
    '{{"spec":{{"containers":[{{"name":"copy","image":"busybox","command":["sleep","3600"],'
    '"volumeMounts":[{{"name":"data","mountPath":"/data"}}]}}],'
    '"volumes":[{{"name":"data","persistentVolumeClaim":{{"claimName":"{claim}"}}}}]}}}}'
)


def kubernetes(found: Needs, *, size: str = "50Gi") -> str:
    """The manifests' text, several YAML documents.

    Args:
        found: what the containers need.
        size: of the claim for the workspace and the files that are read.
    """
    name = found.name
    labels = _labels(name)
    own = None if found.document.startswith("bundled://") else Path(found.document)
    access = "ReadWriteMany" if found.engines else "ReadWriteOnce"  # engines run on other nodes than the gateway
    parts: list[dict[str, Any]] = [
        _object("v1", "PersistentVolumeClaim", f"{name}-data", labels)
        | {"spec": {"accessModes": [access], "resources": {"requests": {"storage": size}}}}
    ]
    parts += _engines(found, own) if found.engines else []
    parts.append(_deployment(found, labels, own))
    service = {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}
    parts.append(_object("v1", "Service", name, labels) | {"spec": service})
    secret = _DOCUMENT.format(name=name, key=_KEY, path=shlex.quote(str(own))) if own is not None else ""
    head = _HEAD.format(
        document=found.document, engines=f", with {found.engines} engines" if found.engines else "", secret=secret, name=name,
        image=found.image, device=found.device, copies=_copies(found, own), overrides=_COPY_POD.format(claim=f"{name}-data"),
    )  # fmt: skip
    if found.urls and not found.engines:
        head += _ELSEWHERE.format(urls=", ".join(found.urls), count=len(found.urls))
    return head + dump(parts)


def _deployment(found: Needs, labels: dict[str, str], own: Path | None) -> dict[str, Any]:
    """The gateway."""
    set_name = _engines_name(found)
    hosts = [f"{set_name}-{number}.{set_name}" for number in range(found.engines)]
    header = {"httpHeaders": [{"name": "Host", "value": found.host}]} if found.host else {}
    container = _container(found, own, found.command(hosts), found.port)
    container |= _probes(found, {"path": "/ready", **header}, {"path": "/health", **header})
    if found.device == "cuda" and found.computes:
        container["resources"] = {"limits": {"nvidia.com/gpu": found.gpus}}
    spec = {
        "replicas": 1,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": _pod(found, own, container)},
    }
    return _object("apps/v1", "Deployment", found.name, labels) | {"spec": spec}


def _engines(found: Needs, own: Path | None) -> list[dict[str, Any]]:
    """vLLMs that are restarted one after another, names for each of them, and who may reach them."""
    name = _engines_name(found)
    labels = _labels(name) | {"app.kubernetes.io/component": "engine"}
    container = _container(found, own, found.engine_command(), ENGINE_PORT)
    container |= _probes(found, {"path": "/health"}, {"path": "/health"})
    if found.device == "cuda":
        container["resources"] = {"limits": {"nvidia.com/gpu": found.gpus}}
    pods = {
        "replicas": found.engines,
        "serviceName": name,
        "podManagementPolicy": "Parallel",
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": _pod(found, own, container)},
    }
    port = {"name": "http", "port": ENGINE_PORT, "targetPort": "http"}
    # The gateway asks each engine itself whether it is well, so its name is there before it is.
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels, "ports": [port]}
    allowed = {"from": [{"podSelector": {"matchLabels": _labels(found.name)}}], "ports": [{"port": "http"}]}
    policy = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [allowed]}
    return [
        _object("v1", "Service", name, labels) | {"spec": service},
        _object("apps/v1", "StatefulSet", name, labels) | {"spec": pods},
        _object("networking.k8s.io/v1", "NetworkPolicy", name, labels) | {"spec": policy},
    ]


def _engines_name(found: Needs) -> str:
    return label(f"{found.name[:_STEM].rstrip('-')}-engine")


def _container(found: Needs, own: Path | None, command: list[str], port: int) -> dict[str, Any]:
    mounts: list[dict[str, Any]] = [{"name": "data", "mountPath": str(found.home), "subPath": _inside(found.home)}]
    for path in found.reads:
        if own is not None and path == own:
            mounts.append({"name": "document", "mountPath": str(path), "subPath": _KEY, "readOnly": True})
        else:
            mounts.append({"name": "data", "mountPath": str(path), "subPath": _inside(path), "readOnly": True})
    if own is not None and own not in found.reads:  # in a folder that is mounted, or in the workspace
        mounts.append({"name": "document", "mountPath": str(own), "subPath": _KEY, "readOnly": True})
    mounts += [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108
    environment = {"LLMBENCH_HOME": str(found.home), "HOME": "/tmp"}  # noqa: S108 - the container's own
    token: list[dict[str, Any]] = []
    if found.downloads:
        environment["HF_HOME"] = str(found.home / "huggingface")
        secret = {"name": "huggingface", "key": "token", "optional": True}
        token.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": secret}})
    return {
        "name": "llmbench",
        "image": found.image,
        "command": command,
        "env": [{"name": key, "value": value} for key, value in environment.items()] + token,
        "ports": [{"name": "http", "containerPort": port}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }


def _probes(found: Needs, ready: dict[str, Any], well: dict[str, Any]) -> dict[str, Any]:
    def probe(get: dict[str, Any], **times: int) -> dict[str, Any]:
        return {"httpGet": get | {"port": "http"}, "timeoutSeconds": 10} | times

    return {
        "startupProbe": probe(ready, periodSeconds=10, failureThreshold=-(-found.start_seconds // 10)),
        "readinessProbe": probe(ready, periodSeconds=10, failureThreshold=2),
        # As long as a start takes: llmbench starts vLLM again by itself, and is not well meanwhile.
        "livenessProbe": probe(well, periodSeconds=20, failureThreshold=-(-found.start_seconds // 20)),
    }


def _pod(found: Needs, own: Path | None, container: dict[str, Any]) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": "data", "persistentVolumeClaim": {"claimName": f"{found.name}-data"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}},
    ]
    if own is not None:
        volumes.append({"name": "document", "secret": {"secretName": f"{found.name}-document", "defaultMode": 0o440}})
    return {
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


def _labels(instance: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "llmbench", "app.kubernetes.io/instance": instance}


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
