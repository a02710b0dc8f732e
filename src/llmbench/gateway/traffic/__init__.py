"""Which variant answers the requests of a route, and what a new one must show before it gets them all."""

from llmbench.gateway.traffic.control import Control
from llmbench.gateway.traffic.routes import Route, Routes

__all__ = ["Control", "Route", "Routes"]
