"""A Compose file (the Compose Specification, as `docker compose` 2 reads it)."""

from __future__ import annotations

import os
from typing import Any

from llmbench.containers.needs import Needs
from llmbench.containers.text import dump

__all__ = ["compose"]

_HEAD = """\
# Serves {document} in a container. Build its image once, in a checkout of llmbench:
#   docker build -f docker/Dockerfile.{device} -t {image} .
# Then, with this file as compose.yaml:
#   docker compose up --detach --wait
#   docker compose logs --follow
# Every file has the path that it has here. Run llmbench's commands in the container, such as:
#   docker compose exec {name} llmbench keys list
"""


def compose(found: Needs) -> str:
    """The file's text, ending in a newline."""
    service: dict[str, Any] = {
        "image": found.image,
        "command": [_plain(word) for word in found.command],
        "user": f"{os.getuid()}:{os.getgid()}",
        "init": True,
        "restart": "unless-stopped",
        "ports": [f"{found.port}:{found.port}"],
        "environment": _environment(found),
        "volumes": [_mount(str(found.home), writes=True), *(_mount(str(path), writes=False) for path in found.reads)],
        "tmpfs": ["/tmp:mode=1777,exec"],  # noqa: S108 - the container's own
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": "2gb",
        "stop_grace_period": f"{found.stop_seconds}s",
        "healthcheck": {
            "test": ["CMD", *map(_plain, found.probe)],
            "interval": "15s",
            "timeout": "10s",
            "retries": 4,
            "start_period": f"{found.start_seconds}s",
        },
    }
    if found.device == "cuda":
        device = {"driver": "nvidia", "count": found.gpus, "capabilities": ["gpu"]}
        service["deploy"] = {"resources": {"reservations": {"devices": [device]}}}
    head = _HEAD.format(document=found.document, device=found.device, image=found.image, name=found.name)
    return head + dump([{"services": {found.name: service}}])


def _environment(found: Needs) -> dict[str, str]:
    values = {"LLMBENCH_HOME": str(found.home), "HOME": "/tmp"}  # noqa: S108 - the container's own
    if found.downloads:
        values |= {"HF_HOME": str(found.home / "huggingface"), "HF_TOKEN": "${HF_TOKEN:-}"}
    return values


def _mount(path: str, *, writes: bool) -> dict[str, Any]:
    path = _plain(path)
    return {"type": "bind", "source": path, "target": path} | ({} if writes else {"read_only": True})


def _plain(text: str) -> str:
    """A text in which Compose replaces nothing."""
    return text.replace("$", "$$")
