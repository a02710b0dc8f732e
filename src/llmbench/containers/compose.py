"""A Compose file (the Compose Specification, as `docker compose` 2 reads it)."""

from __future__ import annotations

import os
from typing import Any

from llmbench.containers.needs import Needs
from llmbench.containers.text import dump

__all__ = ["compose"]

_HEAD = """\
# Serves {document} in {containers}. Build the image once, in a checkout of llmbench:
#   docker build -f docker/Dockerfile.{device} -t {image} .
# Then, with this file as compose.yaml:
#   docker compose up --detach --wait
#   docker compose logs --follow
# Every file has the path that it has here. Run llmbench's commands in the container, such as:
#   docker compose exec {name} llmbench keys list
"""
_ELSEWHERE = "# Its engines run elsewhere: {urls}. For containers of their own here, add --engines {count}.\n"


def compose(found: Needs) -> str:
    """The file's text, ending in a newline: a service for the gateway, and one for each engine with a container of its own."""
    engines = [f"{found.name}-engine-{number}" for number in range(1, found.engines + 1)]
    gateway = _service(found, found.command(engines), found.probe()) | {"ports": [f"{found.port}:{found.port}"]}
    if engines:
        gateway["depends_on"] = {name: {"condition": "service_healthy"} for name in engines}
    elif found.computes and found.device == "cuda":
        gateway["deploy"] = _gpus({"count": found.gpus})
    services = {found.name: gateway}
    for number, name in enumerate(engines):
        services[name] = _service(found, found.engine_command(), found.engine_probe())
        if found.device == "cuda":  # by number: with a count each would be given the first ones
            own = range(number * found.gpus, (number + 1) * found.gpus)
            services[name]["deploy"] = _gpus({"device_ids": [str(one) for one in own]})
    containers = f"{len(services)} containers, {len(engines)} of them engines" if engines else "a container"
    head = _HEAD.format(document=found.document, containers=containers, device=found.device, image=found.image, name=found.name)
    if found.urls and not engines:
        head += _ELSEWHERE.format(urls=", ".join(found.urls), count=len(found.urls))
    return head + dump([{"services": services}])


def _service(found: Needs, command: list[str], probe: list[str]) -> dict[str, Any]:
    return {
        "image": found.image,
        "command": [_plain(word) for word in command],
        "user": f"{os.getuid()}:{os.getgid()}",
        "init": True,
        "restart": "unless-stopped",
        "environment": _environment(found),
        "volumes": [_mount(str(found.home), writes=True), *(_mount(str(path), writes=False) for path in found.reads)],
        "tmpfs": ["/tmp:mode=1777,exec"],  # noqa: S108 - the container's own
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "shm_size": "2gb",
        "stop_grace_period": f"{found.stop_seconds}s",
        "healthcheck": {
            "test": ["CMD", *map(_plain, probe)],
            "interval": "15s",
            "timeout": "10s",
            "retries": 4,
            "start_period": f"{found.start_seconds}s",
        },
    }


def _gpus(which: dict[str, Any]) -> dict[str, Any]:
    device = {"driver": "nvidia", **which, "capabilities": ["gpu"]}
    return {"resources": {"reservations": {"devices": [device]}}}


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
