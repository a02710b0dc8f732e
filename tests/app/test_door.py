"""Who may ask the app for what."""

from __future__ import annotations

import httpx
import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=app/main.py",
        "/gradio_api/file=http://169.254.169.254/latest",
        "/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/proxy=http://169.254.169.254/",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/mcp/sse",
        "/gradio_api/runs",
        "/gradio_api/vibe-code/",
        "/gradio_api/component_server",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/login",
        "/static/../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
    ],
)
def test_routes_that_the_page_does_not_need_are_not_there(address: str, path: str) -> None:
    answer = httpx.get(httpx.URL(address).copy_with(raw_path=path.encode()), params=None)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text


@pytest.mark.parametrize("path", [f"/gradio_api/{end}" for end in ("upload", "run/predict", "api/ask", "call/ask")])
def test_nothing_can_be_uploaded_or_called_as_an_api(address: str, path: str) -> None:
    assert httpx.post(address + path, files={"files": ("a.txt", b"x")}).status_code == 404
    assert httpx.post(address + path, json={"data": []}).status_code == 404


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1.evil.example", "http://localhost:1"])
def test_another_sites_page_may_not_ask(address: str, origin: str) -> None:
    answer = httpx.post(f"{address}/gradio_api/queue/join", json={"data": [], "fn_index": 0}, headers={"Origin": origin})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:7860", "evil.example@127.0.0.1", ""])
def test_a_name_bound_to_this_machine_is_refused(address: str, host: str) -> None:
    assert httpx.get(address, headers={"Host": host}).status_code in (400, 403)


def test_the_browser_is_told_to_load_nothing_from_elsewhere(address: str) -> None:
    answer = httpx.get(address)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "fonts.googleapis" not in answer.text
