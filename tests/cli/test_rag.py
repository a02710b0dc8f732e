"""`llmbench index`, `search` and `ask`: what they print, and what they refuse."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from typer.testing import CliRunner, Result

from llmbench import recipe as recipes
from llmbench.cli.main import cli
from llmbench.errors import EndpointError, LlmbenchError
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Document, Writer
from llmbench.retrieval.reading.pages import forget

pytestmark = pytest.mark.usefixtures("kept_embedder")


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def printed(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def pages(pipeline: Path) -> str:
    """The session's three pages, indexed in this test's own outputs folder."""
    assert run("index", str(pipeline)).exit_code == 0
    return str(pipeline)


def test_index_sums_up_and_names_what_it_skipped(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Pump\n\nThe pump is loud.")
    (tmp_path / "docs" / "b.pdf").write_bytes(b"%PDF broken")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\ndocuments: [docs]\n")
    result = run("index", str(recipe))
    assert result.stdout.startswith("mine: 1 added, 1 skipped. 1 passage, 1 embedded now, in ")
    assert "skipped b.pdf: broken PDF" in result.stderr
    report = printed("index", str(recipe))
    assert (report["unchanged"], report["embedded"], report["chunks"]) == (1, 0, 1)
    assert [entry["source"] for entry in report["skipped"]] == ["b.pdf"]
    rebuilt = printed("index", str(recipe), "--rebuild", "chunking.max_tokens=50")
    assert (rebuilt["added"], rebuilt["embedded"]) == (1, 1)


def test_search_prints_ranked_passages_with_their_place(pages: str) -> None:
    result = run("search", pages, "What is the Borin lamp made of?", "-k", "1")
    first, second = result.stdout.splitlines()
    assert first.startswith("[1] 1.000 fused  ") and first.endswith("lamp.md:3  Borin lamp")
    assert second.strip() == "The Borin lamp is made of brass. It weighs 900 grams."
    found = printed("search", pages, "refunds")
    assert found["hits"][0]["source"] == "refunds.md"
    assert found["hits"][0].keys() == {
        "n", "id", "source", "title", "start", "end", "page", "line", "score", "kind", "stages", "metadata", "text",
    }  # fmt: skip
    tagged = printed("index", pages, f"documents=[{{path: {json.dumps(str(Path(pages).parent))}, metadata: {{team: shop}}}}]")
    assert tagged["changed"] + tagged["added"] > 0
    again = printed("search", pages, "refunds", "--where", '{"team": "shop"}')
    assert again["hits"] and all(hit["metadata"]["team"] == "shop" and hit["kind"] == "fused" for hit in again["hits"])


class Model(BaseHTTPRequestHandler):
    """Speaks as much of the OpenAI API as `ask` uses: `plain` answers wrongly cited, `grounded` has sources of its own."""

    asked: list[str] = []

    def do_GET(self) -> None:
        models = [{"id": "plain"}, {"id": "grounded", "rag": "pages"}]
        self._send("application/json", json.dumps({"data": models}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Model.asked.append(body["messages"][-1]["content"])
        events: list[dict[str, Any]] = [{"choices": [{"delta": {"content": text}}]} for text in ("It is ", "brass [1] [9].")]
        if body["model"] == "grounded":
            source = {"n": 1, "source": "far.md", "title": "Far", "start": 0, "end": 5, "score": 0.5, "text": "Brass"}
            events[0]["sources"] = [source]
        self._send(
            "text/event-stream", b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in events) + b"data: [DONE]\n\n"
        )

    def _send(self, kind: str, data: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Keeps quiet."""


@pytest.fixture
def url() -> Iterator[str]:
    """Where `Model` answers."""
    Model.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()
        thread.join()


def test_ask_gives_a_plain_model_the_passages_and_flags_a_citation_of_none(pages: str, url: str) -> None:
    result = run("ask", pages, "What is the Borin lamp made of?", "--model", "plain", "--url", url)
    assert result.exit_code == 0, result.output
    answer, _, first, second, flag = result.stdout.splitlines()
    assert answer == "It is brass [1] [9]."
    assert first == "[1] cited  lamp.md:3 characters 14-67  Borin lamp"
    assert second.startswith("[2] ") and "cited" not in second
    assert flag == "The answer cites [9], but there is no such passage."
    assert Model.asked[0].startswith("Passages:\n[1] The Borin lamp is made of brass. It weighs 900 grams.\n[2] ")


def test_ask_says_to_model_and_reader_that_nothing_was_found(pages: str, url: str) -> None:
    nowhere = ("--where", '{"year": 1900}', "--model", "plain", "--url", url)
    result = run("ask", pages, "What is the Borin lamp made of?", *nowhere)
    assert "\nThe answer is not based on any passage: none was found, or none fits into the model's context.\n" in result.stdout
    assert Model.asked == ["Passages:\n(No passage was found.)\n\nQuestion: What is the Borin lamp made of?"]
    assert printed("ask", pages, "Brass?", *nowhere)["sources"] == []


def test_a_search_beside_a_writer_does_not_ask_to_index(pages: str) -> None:
    recipe = recipes.load(pages, RagRecipe)
    with Writer.open(recipe) as writer:
        writer.upsert([Document("1", "crm/1", "Ticket", "The lamp flickers.", "text")])
        beside = run("search", pages, "lamp")
        assert "crm/1" in beside.stdout
        assert beside.stderr == "Index pages is not complete: a process is writing it.\n"
    assert run("search", pages, "lamp").stderr == ""


def test_ask_leaves_retrieval_to_a_variant_that_does_it(pages: str, url: str) -> None:
    found = printed("ask", pages, "Brass?", "--model", "grounded", "--url", url)
    assert Model.asked == ["Brass?"]
    assert [source["source"] for source in found["sources"]] == ["far.md"]
    assert found["citations"] == {"valid": [1], "invalid": [9]}


def test_ask_says_who_is_there_when_the_model_is_not(pages: str, url: str) -> None:
    with pytest.raises(EndpointError, match=r"has no model gone\. Available: plain, grounded\."):
        CliRunner().invoke(cli, ["ask", pages, "x", "--model", "gone", "--url", url], catch_exceptions=False)
    with pytest.raises(EndpointError, match=r"No endpoint answers at http://127\.0\.0\.1:9/v1"):
        CliRunner().invoke(cli, ["ask", pages, "x", "--model", "a", "--url", "http://127.0.0.1:9/v1"], catch_exceptions=False)


def test_ask_with_the_real_gateway_answers_from_the_passages(endpoint: Any, pages: str) -> None:
    for model in ("base", "base-rag"):
        found = printed("ask", pages, "What is the Borin lamp made of?", "--model", model, "--url", endpoint.base_url)
        assert found["answer"]
        assert found["sources"][0]["text"] == "The Borin lamp is made of brass. It weighs 900 grams."


def test_chat_with_the_real_gateway_sends_the_conversation_along(endpoint: Any) -> None:
    asked = ["chat", "base-rag", "--url", endpoint.base_url, "--max-tokens", "24", "--json"]
    done = CliRunner().invoke(cli, asked, input="What is the Borin lamp made of?\nAnd what does it weigh?\n")
    first, second = json.loads(done.stdout)["turns"]
    assert first["answer"] and second["answer"] and first["completion_tokens"] <= 24
    assert first["sources"][0]["text"] == "The Borin lamp is made of brass. It weighs 900 grams."


def test_passages_that_are_too_many_for_a_model_are_told_with_the_remedy(endpoint: Any, pages: str) -> None:
    with pytest.raises(EndpointError, match=r"context length.* Use fewer passages: add context\.max_tokens=600"):
        CliRunner().invoke(
            cli, ["ask", pages, "lamp " * 1100, "--model", "base", "--url", endpoint.base_url], catch_exceptions=False
        )


def test_search_shows_where_in_a_pdf_a_passage_stands(tmp_path: Path) -> None:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    for text in ("The pump is loud.", "The valve opens to the left and closes to the right."):
        pdf.add_page()
        pdf.multi_cell(0, 6, text)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "note.md").write_text("# Note\n\nThe valve is new.")
    pdf.output(str(tmp_path / "docs" / "manual.pdf"))
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\ndocuments: [docs]\n")
    assert run("index", str(recipe)).exit_code == 0
    folder = tmp_path / "shown"
    found = printed("search", str(recipe), "How does the valve open?", "--show", str(folder))
    hits = {(hit["source"], hit["page"]): hit for hit in found["hits"]}
    valve = hits["manual.pdf", 2]
    (box,) = valve["boxes"]
    assert box["page"] == 2 and box.keys() == {"page", "left", "top", "right", "bottom"} and box["left"] < box["right"]
    assert valve["pictures"] == [str(folder / f"hit-{valve['n']}-page-2.png")]
    assert Path(valve["pictures"][0]).read_bytes().startswith(b"\x89PNG")
    assert not {"boxes", "pictures"} & hits["note.md", None].keys()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        Path(path).name for hit in found["hits"] for path in hit.get("pictures", [])
    )
    told = run("search", str(recipe), "How does the valve open?", "-k", "1", "--show", str(folder))
    assert f"    {folder}/hit-1-page-2.png\n" in told.stdout
    (tmp_path / "docs" / "manual.pdf").unlink()
    forget()
    gone = run("search", str(recipe), "How does the valve open?", "--show", str(folder))
    assert gone.exit_code == 0 and "The valve opens to the left" in gone.stdout
    assert gone.stderr.count("manual.pdf no longer exists") == 1
    with pytest.raises(LlmbenchError, match="is a file"):
        CliRunner().invoke(cli, ["search", str(recipe), "x", "--show", str(recipe)], catch_exceptions=False)
