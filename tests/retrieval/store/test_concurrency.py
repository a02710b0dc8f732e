"""Threads and processes that search while a writer writes: every answer is of one committed state, and never of one past."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbench import workspace
from llmbench.errors import LlmbenchError
from llmbench.message import Message
from llmbench.recipe import ChunkingSpec, RagRecipe, SearchSpec
from llmbench.retrieval import Document, Retriever
from llmbench.retrieval.index.writer import Writer
from llmbench.retrieval.store import Index, layout
from llmbench.retrieval.store import verify as verifying
from llmbench.retrieval.store.layout import current
from llmbench.retrieval.store.verify import verify

Make = Callable[..., Document]
GROUP = 6

SEARCHES = """
import os, runpy, sys
from pathlib import Path
from llmbench.recipe import RagRecipe
from llmbench.retrieval import Retriever

here, pages, stop = sys.argv[1:]
recipe = RagRecipe(name="store", documents=[Path(pages)])
words = runpy.run_path(here)["Words"]()
children = []
for _ in range(4):
    child = os.fork()
    if child == 0:
        try:
            searches, newest = 0, -1
            with Retriever.open(recipe, embedder=words) as retriever:
                while not Path(stop).exists() or searches == 0:
                    rounds = {hit.chunk.text.split()[-1] for hit in retriever.search("the common words of round", 100)}
                    assert len(rounds) <= 1, rounds
                    now = int(next(iter(rounds), newest))
                    assert now >= newest, (now, newest)
                    newest, searches = now, searches + 1
            os._exit(0)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
    children.append(child)
print("ready", flush=True)
sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def generation(doc: Make, number: int) -> list[Document]:
    """The whole state of a round: each of its documents names it, and no two texts are the same."""
    return [doc(f"doc{i}", f"the common words, variant{i * 7919}, of round {number}") for i in range(GROUP)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("rounds", [9, 25])
def test_threads_and_processes_see_one_committed_state_at_a_time(
    recipe: RagRecipe, words: Any, doc: Make, pages: Path, folder: Path, tmp_path: Path, upsert: Any, rounds: int
) -> None:
    upsert(*generation(doc, 0))
    stop = tmp_path / "stop"
    program = [sys.executable, "-c", SEARCHES, str(Path(__file__).with_name("words.py")), str(pages), str(stop)]
    committed, ended = [0], threading.Event()
    with (
        subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as processes,
        Retriever.open(recipe, embedder=words) as retriever,
        ThreadPoolExecutor(8) as pool,
    ):
        assert processes.stdout is not None and processes.stdout.readline() == "ready\n"

        def look() -> int:
            count = 0
            while not ended.is_set() or count == 0:
                before = committed[0]
                rounds = [int(hit.chunk.text.split()[-1]) for hit in retriever.search("the common words of round", 100)]
                assert len(set(rounds)) <= 1 and len(rounds) in (0, GROUP), rounds
                assert not rounds or rounds[0] >= before, "a passage that was gone before the search began"
                count += 1
            return count

        try:
            looks = [pool.submit(look) for _ in range(8)]
            with Writer.open(recipe, embedder=words) as writer:
                for number in range(1, rounds):
                    writer.upsert(generation(doc, number))
                    committed[0] = number
                    assert {hit.chunk.text.split()[-1] for hit in retriever.search("round", 100)} == {str(number)}
                    if number % 5 == 0:
                        assert writer.delete(sources=[f"doc{i}" for i in range(GROUP)]) == GROUP
                        assert retriever.search("round", 100) == []
                    if number % 8 == 0:
                        writer.compact()
        finally:
            ended.set()
            stop.touch()
        assert all(future.result() > 0 for future in looks)
        _, errors = processes.communicate(timeout=60)
        assert (processes.returncode, errors) == (0, ""), errors
    assert verify(folder).faults == ()


PARENTS = {"chunking": ChunkingSpec(max_tokens=30, overlap=0, parent_tokens=60)}
NEIGHBOURS = {"chunking": ChunkingSpec(max_tokens=30, overlap=0), "search": SearchSpec(neighbours=1)}


def page(doc: Make, source: str, number: int) -> Document:
    """A document of several passages, each of which names the round."""
    return doc(source, "\n\n".join(f"{source} part{part} of common words, round {number}. " * 4 for part in range(4)))


class Overtaken(Retriever):
    """A writer is quicker than it: what `then` does is done between a search and what follows."""

    then: Callable[[], object] = staticmethod(lambda: None)

    def search(self, *arguments: Any, **named: Any) -> list[Any]:
        found = super().search(*arguments, **named)
        self.then()
        return found


@pytest.mark.parametrize("around", [PARENTS, NEIGHBOURS, {"chunking": ChunkingSpec(max_tokens=30, overlap=0)}])
def test_a_document_deleted_between_search_and_passages_is_in_no_prompt(
    recipe: RagRecipe, words: Any, doc: Make, around: dict[str, Any]
) -> None:
    own = recipe.model_copy(update=around)
    question: list[Message] = [{"role": "user", "content": "common words of a round"}]
    with Writer.open(own, embedder=words) as writer:
        writer.upsert([page(doc, "a", 0), page(doc, "b", 0)])
        with Overtaken.open(own, embedder=words) as retriever:
            assert isinstance(retriever, Overtaken)
            assert {source["source"] for source in retriever.ground(question).sources} == {"a", "b"}
            retriever.then = lambda: writer.delete(sources=["a"])
            found = retriever.ground(question)
            assert {source["source"] for source in found.sources} == {"b"}
            assert "part0" in found.messages[-1]["content"] and "a part" not in found.messages[-1]["content"]
            rounds = iter(range(1, 99))  # a writer that never rests: no search is of a state that lasts
            retriever.then = lambda: writer.upsert([page(doc, "b", next(rounds))])
            assert retriever.ground(question).sources == ()


@pytest.mark.timeout(120)
def test_every_prompt_is_of_one_state_while_documents_come_and_go(
    recipe: RagRecipe, words: Any, doc: Make, folder: Path
) -> None:
    own = recipe.model_copy(update=PARENTS)
    question: list[Message] = [{"role": "user", "content": "common words of a round"}]
    ended = threading.Event()
    with (
        Writer.open(own, embedder=words) as writer,
        Retriever.open(own, embedder=words) as retriever,
        ThreadPoolExecutor(4) as pool,
    ):

        def look() -> int:
            count = 0
            while not ended.is_set() or count == 0:
                sources = retriever.ground(question).sources
                rounds = {word for source in sources for word in re.findall(r"round (\d+)", source["text"])}
                assert len(rounds) <= 1, rounds
                count += 1
            return count

        try:
            looks = [pool.submit(look) for _ in range(4)]
            for number in range(25):
                writer.upsert([page(doc, "a", number), page(doc, "b", number)])
                if number % 3 == 0:
                    writer.delete(sources=["a", "b"])
        finally:
            ended.set()
        assert all(future.result() > 0 for future in looks)
    assert verify(folder).faults == ()


def test_a_second_writer_is_told_who_writes_or_waits(recipe: RagRecipe, words: Any, doc: Make, folder: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from llmbench import workspace\n"
        "with workspace.lock(Path(sys.argv[1]), 'index'):\n    print('held', flush=True); sys.stdin.readline()"
    )
    folder.mkdir(parents=True)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None and other.stdout is not None and other.stdout.readline() == "held\n"
        with (
            pytest.raises(LlmbenchError, match=rf"index store is in use by process {other.pid}\. Wait for it"),
            Writer.open(recipe, embedder=words),
        ):
            pass
        assert workspace.held(folder)
        timer = threading.Timer(0.5, lambda: other.communicate("go\n"))
        timer.start()
        with Writer.open(recipe, wait=60, embedder=words) as writer:
            writer.upsert([doc("a", "alpha")])
        timer.join()
    assert verify(folder).documents == 1


def test_a_generation_that_goes_after_it_was_seen_is_followed(
    recipe: RagRecipe, words: Any, doc: Make, upsert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(*generation(doc, 0))
    with Writer.open(recipe, embedder=words) as writer, Retriever.open(recipe, embedder=words) as retriever:
        packed: list[Path] = []

        class Going(type(Path())):  # type: ignore[misc]
            def exists(self) -> bool:
                there = bool(super().exists())
                if not packed:
                    packed.append(self)
                    writer.compact()
                return there

        def looked(folder: Path) -> Path | None:
            found = current(folder)
            return None if found is None else Going(found)

        monkeypatch.setattr(layout, "current", looked)
        assert len(retriever.search("round", 100)) == GROUP
        assert packed and not Path(packed[0]).exists()


def test_a_look_whether_all_is_whole_follows_a_generation_that_goes(
    recipe: RagRecipe, words: Any, doc: Make, upsert: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upsert(*generation(doc, 0))
    looks: list[Path] = []
    with Writer.open(recipe, embedder=words) as writer:

        def opened(path: Path) -> Index:
            index = Index(path)
            looks.append(path)
            if len(looks) == 1:
                writer.compact()
            return index

        monkeypatch.setattr(verifying, "Index", opened)
        found = verify(folder)
    assert found.faults == () and found.documents == GROUP
    assert len(looks) == 2 and not looks[0].exists()
