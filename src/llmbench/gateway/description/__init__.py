"""What the server says of itself on /openapi.json: its paths, what they take and give, and its errors (OpenAPI 3.1).

Requests are described from the tables that check them, so that the two cannot differ. A new path is a row of `paths`, the
schema of its request in `requests`, and that of its answer in `answers`.
"""

from llmbench.gateway.description.paths import document

__all__ = ["document"]
