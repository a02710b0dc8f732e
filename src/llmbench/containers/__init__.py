"""What runs a serving document in containers: a Compose file and Kubernetes manifests. Nothing is started or built here."""

from llmbench.containers.compose import compose
from llmbench.containers.kubernetes import kubernetes
from llmbench.containers.needs import Needs, needs

__all__ = ["Needs", "compose", "kubernetes", "needs"]
