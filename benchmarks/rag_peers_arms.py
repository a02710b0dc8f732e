"""One job of rag_peers.py with one library, in an environment that need not have llmbench.

    python rag_peers_arms.py ARM JOB SETTINGS.json

Jobs: `ingest` (documents to a saved index), `again` (the same documents once more, as each library's documentation brings an
index up to date), `query` (a new process opens the index and answers the questions one at a time), `correct` (a rare filter;
delete, then search) and `save` (saves over and over until it is killed). Prints one line of JSON; `save` prints `saving`
before the first. Each library is used as its own documentation shows, with its defaults, but the same embedder, and passages
of 200 tokens that overlap by 20.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

SIZE, OVERLAP = 200, 20


class Arm(Protocol):
    """One library. Files are (path, kind); their `tag`, which is filtered by, is the kind."""

    def load(self) -> None:
        """Imports and the model, which are not timed."""

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        """Files to a saved index."""

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        """The same files brought up to date in the index that is open."""

    def open(self) -> None:
        """Opens the saved index."""

    def count(self) -> int:
        """Passages in it."""

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        """The files' names of the k best passages."""

    def delete(self, path: Path) -> None:
        """Removes a file's passages."""

    def save(self) -> None:
        """Saves the open index."""


class Llmbench:
    """llmbench itself: a folder that it watches over, every write durable."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.folder = settings, Path(settings["index"])

    def load(self) -> None:
        os.environ["LLMBENCH_HOME"] = str(self.folder)
        from llmbench import retrieval
        from llmbench.recipe import RagRecipe
        from llmbench.retrieval.embedding import Embedder

        places = [
            {"path": str(path), "metadata": {"tag": path.name}} for path in sorted(Path(self.settings["files"]).iterdir())
        ]
        self.library = retrieval
        self.recipe = RagRecipe.model_validate(
            {
                "name": "peers", "documents": places, "chunking": {"max_tokens": SIZE, "overlap": OVERLAP},
                "embedder": {"model_name_or_path": self.settings["model"]}, "search": {"mode": "dense", "deduplicate": False},
            }
        )  # fmt: skip
        self.embedder = Embedder(self.recipe.embedder)
        self.embedder.embed_documents(["warm", "too"])

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        self.passages = self.library.build(self.recipe, embedder=self.embedder).chunks

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        self.ingest(files)

    def open(self) -> None:
        self.retriever = self.library.Retriever.open(self.recipe)

    def count(self) -> int:
        return len(self.retriever.search("anything", 10**6))

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        where: dict[str, Any] = {} if kind is None else {"where": {"tag": kind}}
        return [Path(hit.chunk.source).name for hit in self.retriever.search(question, k, **where)]

    def delete(self, path: Path) -> None:
        path.unlink()
        self.library.build(self.recipe, embedder=self.embedder)

    def save(self) -> None:
        path = next(Path(self.settings["files"]).rglob("*.txt"))
        path.write_text(path.read_text(encoding="utf-8") + " More.", encoding="utf-8")
        self.library.build(self.recipe, embedder=self.embedder)


class LlamaIndex:
    """llama-index with its FaissVectorStore, as https://docs.llamaindex.ai shows it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.folder = settings, str(settings["index"])

    def load(self) -> None:
        from llama_index.core import Settings
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from transformers import AutoTokenizer

        Settings.embed_model = HuggingFaceEmbedding(model_name=self.settings["model"], device="cpu")
        Settings.llm = None
        tokenizer = AutoTokenizer.from_pretrained(self.settings["model"])
        splitter = SentenceSplitter(chunk_size=SIZE, chunk_overlap=OVERLAP, tokenizer=tokenizer.tokenize)
        Settings.node_parser = splitter
        Settings.embed_model.get_text_embedding("warm")

    def documents(self) -> Any:
        from llama_index.core import SimpleDirectoryReader

        return SimpleDirectoryReader(
            self.settings["files"], recursive=True, filename_as_id=True, file_metadata=lambda p: {"tag": Path(p).parent.name}
        ).load_data()

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        import faiss
        from llama_index.core import StorageContext, VectorStoreIndex
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore(faiss_index=faiss.IndexFlatIP(384))
        context = StorageContext.from_defaults(vector_store=store)
        self.index = VectorStoreIndex.from_documents(self.documents(), storage_context=context)
        self.save()

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        self.index.refresh_ref_docs(self.documents())
        self.save()

    def open(self) -> None:
        from llama_index.core import StorageContext, load_index_from_storage
        from llama_index.vector_stores.faiss import FaissVectorStore

        store = FaissVectorStore.from_persist_dir(self.folder)
        self.index = load_index_from_storage(StorageContext.from_defaults(vector_store=store, persist_dir=self.folder))

    def count(self) -> int:
        return int(self.index.vector_store._faiss_index.ntotal)

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        from llama_index.core.vector_stores import MetadataFilter, MetadataFilters

        filters = None if kind is None else MetadataFilters(filters=[MetadataFilter(key="tag", value=kind)])
        found = self.index.as_retriever(similarity_top_k=k, filters=filters).retrieve(question)
        return [Path(node.node.ref_doc_id).name for node in found]

    def delete(self, path: Path) -> None:
        self.index.delete_ref_doc(str(path), delete_from_docstore=True)

    def save(self) -> None:
        self.index.storage_context.persist(persist_dir=self.folder)


class LangChain:
    """langchain-community's FAISS, as its documentation shows it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.folder = settings, str(settings["index"])

    def load(self) -> None:
        from langchain_huggingface import HuggingFaceEmbeddings
        from langchain_text_splitters import RecursiveCharacterTextSplitter
        from transformers import AutoTokenizer

        self.embeddings = HuggingFaceEmbeddings(model_name=self.settings["model"], model_kwargs={"device": "cpu"})
        self.splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
            AutoTokenizer.from_pretrained(self.settings["model"]), chunk_size=SIZE, chunk_overlap=OVERLAP
        )
        self.embeddings.embed_query("warm")

    def passages(self, files: Sequence[tuple[Path, str]]) -> Any:
        from langchain_core.documents import Document

        whole = [
            Document(path.read_text(encoding="utf-8"), metadata={"source": str(path), "tag": kind}) for path, kind in files
        ]
        return self.splitter.split_documents(whole)

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        from langchain_community.vectorstores import FAISS

        self.store = FAISS.from_documents(self.passages(files), self.embeddings)
        self.save()

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        self.store.add_documents(self.passages(files))
        self.save()

    def open(self) -> None:
        from langchain_community.vectorstores import FAISS

        self.store = FAISS.load_local(self.folder, self.embeddings, allow_dangerous_deserialization=True)

    def count(self) -> int:
        return int(self.store.index.ntotal)

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        where = None if kind is None else {"tag": kind}
        return [Path(d.metadata["source"]).name for d in self.store.similarity_search(question, k=k, filter=where)]

    def delete(self, path: Path) -> None:
        held = self.store.docstore._dict
        self.store.delete([i for i in self.store.index_to_docstore_id.values() if held[i].metadata["source"] == str(path)])

    def save(self) -> None:
        self.store.save_local(self.folder)


class Txtai(LangChain):
    """txtai's Embeddings with content. It cuts by sentences or paragraphs, not tokens: it is given LangChain's passages."""

    def load(self) -> None:
        super().load()
        from txtai import Embeddings

        self.embeddings = Embeddings(path=self.settings["model"], content=True)
        self.embeddings.transform("warm")

    def rows(self, files: Sequence[tuple[Path, str]]) -> Any:
        for number, passage in enumerate(self.passages(files)):
            data = {"text": passage.page_content, **passage.metadata}
            yield f"{passage.metadata['source']}#{number}", data, None

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        self.embeddings.index(self.rows(files))
        self.save()

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        self.embeddings.upsert(self.rows(files))
        self.save()

    def open(self) -> None:
        self.embeddings.load(self.folder)

    def count(self) -> int:
        return int(self.embeddings.count())

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        where = "" if kind is None else " AND tag = :tag"
        query = f"SELECT id, source FROM txtai WHERE similar(:question){where} LIMIT {k}"
        found = self.embeddings.search(query, parameters={"question": question, "tag": kind})
        return [Path(row["source"]).name for row in found]

    def delete(self, path: Path) -> None:
        found = self.embeddings.search("SELECT id FROM txtai WHERE source = :s LIMIT 1000", parameters={"s": str(path)})
        self.embeddings.delete([row["id"] for row in found])

    def save(self) -> None:
        self.embeddings.save(self.folder)


class Bare(LangChain):
    """The limit: LangChain's passages, sentence-transformers and FAISS, nothing kept but vectors and names."""

    def load(self) -> None:
        super().load()
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(self.settings["model"], device="cpu")
        if self.settings["arm"].endswith("bf16"):
            self.model.bfloat16()
        self.encode(["warm"])

    def encode(self, texts: list[str]) -> Any:
        return self.model.encode(texts, batch_size=64, normalize_embeddings=True, convert_to_tensor=True).float().numpy()

    def ingest(self, files: Sequence[tuple[Path, str]]) -> None:
        import faiss

        passages = self.passages(files)
        self.names = [Path(p.metadata["source"]).name for p in passages]
        self.index: Any = faiss.IndexFlatIP(384)
        self.index.add(self.encode([p.page_content for p in passages]))
        self.save()

    def again(self, files: Sequence[tuple[Path, str]]) -> None:
        raise Lacks("starts anew")

    def open(self) -> None:
        import faiss

        self.index = faiss.read_index(self.folder + "/index.faiss")
        self.names = json.loads(Path(self.folder, "names.json").read_text())

    def count(self) -> int:
        return int(self.index.ntotal)

    def search(self, question: str, k: int, kind: str | None = None) -> list[str]:
        if kind is not None:
            raise Lacks("no filters")
        return [self.names[i] for i in self.index.search(self.encode([question]), k)[1][0]]

    def delete(self, path: Path) -> None:
        raise Lacks("no deletes")

    def save(self) -> None:
        import faiss

        Path(self.folder).mkdir(parents=True, exist_ok=True)
        faiss.write_index(self.index, self.folder + "/index.faiss")
        Path(self.folder, "names.json").write_text(json.dumps(self.names))


def arm_of(settings: dict[str, Any]) -> Arm:
    """The arm by its name."""
    match settings["arm"]:
        case "llmbench":
            return Llmbench(settings)
        case "llama-index":
            return LlamaIndex(settings)
        case "langchain":
            return LangChain(settings)
        case "txtai":
            return Txtai(settings)
        case _:
            return Bare(settings)


class Lacks(Exception):
    """What the bare libraries do not offer; the table says so."""


def said(job: Callable[[], Any]) -> Any:
    """What a job gives, or how it fails."""
    try:
        return job()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"


def files_of(settings: dict[str, Any]) -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(Path(settings["files"]).rglob("*.txt"))]


def run(job: str, settings: dict[str, Any]) -> dict[str, Any]:
    arm, questions = arm_of(settings), settings["questions"]
    arm.load()
    files = files_of(settings)
    result: dict[str, Any] = {}
    if job not in ("ingest",):
        began = time.perf_counter()
        arm.open()
        result["open"] = time.perf_counter() - began
    match job:
        case "ingest" | "again":
            began = time.perf_counter()
            failure = said(lambda: arm.ingest(files) if job == "ingest" else arm.again(files))
            result["seconds"] = time.perf_counter() - began
            result["memory"] = peak()
            if job == "ingest":
                arm.open()
            result["failure"], result["passages"] = failure, arm.count()
        case "query":
            arm.search(questions[0], 5)
            times = []
            for question in questions:
                began = time.perf_counter()
                arm.search(question, 5)
                times.append((time.perf_counter() - began) * 1e3)
            times.sort()
            result["p50"], result["p95"] = times[len(times) // 2], times[int(len(times) * 0.95)]
        case "correct":
            passages = sum(name == "rare.txt" for name in arm.search(questions[0], arm.count()))
            result["filter"] = said(lambda: len(arm.search(questions[0], 5, kind="rare")))
            result["expected"] = min(5, max(1, passages))  # it has text; that a search for everything lacks it is a miss too
            gone = arm.search(questions[0], 1)[0]
            path = next(path for path, _ in files if path.name == gone)
            result["delete"] = said(lambda: arm.delete(path))
            result["found after delete"] = said(lambda: gone in arm.search(questions[0], 5))
        case "save":
            while True:
                print("saving", flush=True)
                arm.save()
    result.setdefault("memory", peak())
    return result


def peak() -> float:
    """MiB of this process at its peak; children are not counted."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[2], json.loads(Path(sys.argv[3]).read_text(encoding="utf-8")))))
