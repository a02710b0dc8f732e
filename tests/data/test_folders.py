"""Which files of a folder are read, what is named as passed over, packed files, and files of the web."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmbench import recipe
from llmbench.data import download, sources
from llmbench.data.preferences import read
from llmbench.errors import DataError, RecipeError
from llmbench.recipe import DataSource, TrainRecipe

ROW = {"prompt": "Hi", "completion": "Hello"}


def lines(*names: str) -> bytes:
    return "".join(json.dumps(ROW | {"name": name}) + "\n" for name in names).encode()


def names(source: DataSource) -> list[str]:
    return [values["name"] for _, values in sources.rows(source)]


def zstd(data: bytes) -> bytes:
    import pyarrow

    packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return packed


PACKERS: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_packed_file_is_read_as_what_it_holds(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    (tmp_path / f"a.jsonl{suffix}").write_bytes(pack(lines("é", "b")))
    (tmp_path / f"b.csv{suffix}").write_bytes(pack(b"prompt,completion,name\nHi,Hello,c\n"))
    (tmp_path / f"c.JSON{suffix.upper()}").write_bytes(pack(json.dumps([ROW | {"name": "d"}]).encode()))
    assert names(DataSource(path=tmp_path)) == ["é", "b", "c", "d"]
    whole = pack(lines(*map(str, range(3000))))
    (tmp_path / f"a.jsonl{suffix}").write_bytes(whole[:-9])
    with pytest.raises(DataError, match=rf"a.jsonl{suffix}: is (cut off|damaged) \("):
        names(DataSource(path=tmp_path / f"a.jsonl{suffix}"))
    for broken in (b"no such thing, only words", whole[:40] + b"\xff" * 40 + whole[80:]):
        (tmp_path / f"a.jsonl{suffix}").write_bytes(broken)
        with pytest.raises(DataError, match="is damaged"):
            names(DataSource(path=tmp_path / f"a.jsonl{suffix}"))


def test_a_packed_file_that_grows_beyond_measure_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.data.packed._FREE", 1000)
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"x" * 10_000_000))
    with pytest.raises(DataError, match=r"a.txt.xz: unpacks to over \d"):
        list(sources.rows(DataSource(path=path)))


def test_files_named_by_splits_are_told_apart(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl", "dev-00001.jsonl", "latest.jsonl"):
        (tmp_path / name).write_bytes(lines(name))
    assert names(DataSource(path=tmp_path)) == ["train.jsonl"]
    [note] = sources.chosen(DataSource(path=tmp_path)).notes
    assert note == "split train is read; not: dev-00001.jsonl, latest.jsonl, test.jsonl"
    for split, name in (("test", "test.jsonl"), ("validation", "dev-00001.jsonl"), ("dev", "dev-00001.jsonl")):
        assert names(DataSource(path=tmp_path, split=split)) == [name]
    assert names(DataSource(path=tmp_path / "*.jsonl")) == ["train.jsonl"]
    assert names(DataSource(path=tmp_path / "test.jsonl")) == ["test.jsonl"]
    (tmp_path / "train.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no split train. Available: test, validation. Write split: test"):
        names(DataSource(path=tmp_path))


def test_folders_named_by_splits_are_told_apart(tmp_path: Path) -> None:
    for name in ("train/a.jsonl", "train/deep/b.jsonl.gz", "eval/c.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lines(name) if path.suffix == ".jsonl" else gzip.compress(lines(name)))
    assert names(DataSource(path=tmp_path)) == ["train/a.jsonl", "train/deep/b.jsonl.gz"]
    assert names(DataSource(path=tmp_path, split="eval")) == ["eval/c.jsonl"]


def test_a_pattern_over_folders_named_by_splits_tells_them_apart(tmp_path: Path) -> None:
    for name in ("train/part.jsonl", "test/part.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(lines(name))
    for pattern in ("*/part.jsonl", "**/*.jsonl"):
        source = DataSource(path=tmp_path / pattern)
        assert names(source) == ["train/part.jsonl"]
        assert sources.chosen(source).notes == ("split train is read; not: test/part.jsonl",)
        assert names(DataSource(path=tmp_path / pattern, split="test")) == ["test/part.jsonl"]


@pytest.mark.parametrize(
    "name", ["LICENSE.txt", "license", "README.txt", "requirements.txt", "NOTICE.txt", "notes.pdf", "data.zip"]
)
def test_what_is_no_data_is_passed_over_and_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines("a"))
    (tmp_path / name).write_text("Permission is hereby granted.")
    found = sources.chosen(DataSource(path=tmp_path))
    assert [path.name for path in found.files] == ["rows.jsonl"] and found.notes == (f"not read: {name}",)


def test_texts_and_rows_in_one_folder_are_an_error_that_says_which(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(lines("a"))
    (tmp_path / "novel.txt").write_text("Call me Ishmael.")
    with pytest.raises(DataError, match=r"holds texts \(novel.txt\) and rows \(rows.jsonl\). Name one: path: .*/\*.jsonl"):
        names(DataSource(path=tmp_path))


def test_a_folder_that_datasets_saved_is_read(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict  # type: ignore[import-untyped]

    made = Dataset.from_list([ROW | {"name": str(i)} for i in range(5)])
    made.save_to_disk(tmp_path / "one", num_shards=2)
    assert names(DataSource(path=tmp_path / "one")) == ["0", "1", "2", "3", "4"]
    DatasetDict({"train": made, "held": made.select([0])}).save_to_disk(tmp_path / "several")
    assert len(names(DataSource(path=tmp_path / "several"))) == 5
    assert sources.chosen(DataSource(path=tmp_path / "several")).notes == ("split train is read; not: held",)
    assert names(DataSource(path=tmp_path / "several", split="held")) == ["0"]
    with pytest.raises(DataError, match=r"has no split test. Available: train, held. Write split: train"):
        names(DataSource(path=tmp_path / "several", split="test"))


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("question, answer", "It has ' answer', which differs in spaces"),
        ("question,Answer", "It has 'Answer', which differs in capitals"),
        ("question,b", "Available: question, b"),
    ],
)
def test_a_column_that_differs_by_a_blank_or_case_is_named(tmp_path: Path, header: str, said: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(f"{header}\nHi,Hello\n")
    with pytest.raises(DataError, match=said):
        list(sources.rows(DataSource(path=path, columns={"prompt": "question", "completion": "answer"})))


def test_lines_that_end_with_cr_alone_are_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(lines("a", "b").replace(b"\n", b"\r"))
    with pytest.raises(DataError, match="Its lines end with CR alone"):
        names(DataSource(path=path))


# -- the web


def client(answers: list[httpx.Response], asked: list[httpx.Request]) -> httpx.Client:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answers.pop(0)

    return httpx.Client(transport=httpx.MockTransport(answer), follow_redirects=True)


def test_an_address_is_downloaded_once_and_asked_for_changes() -> None:
    asked: list[httpx.Request] = []
    answers = [
        httpx.Response(200, content=lines("a"), headers={"etag": '"1"'}), httpx.Response(304),
        httpx.Response(200, content=lines("b"), headers={"etag": '"2"'}),
    ]  # fmt: skip
    with client(answers, asked) as web:
        found = [download.fetch("https://data.test/x/rows.jsonl?raw=1", web).read_bytes() for _ in range(3)]
    assert found == [lines("a"), lines("a"), lines("b")]
    assert [request.headers.get("if-none-match") for request in asked] == [None, '"1"', '"1"']


def test_an_address_whose_name_is_odd_keeps_its_file() -> None:
    for url in ("https://data.test/download.json", "https://data.test/..", f"https://data.test/{'x' * 300}.jsonl"):
        with client([httpx.Response(200, content=lines("a"), headers={"etag": "1"}), httpx.Response(304)], []) as web:
            assert [download.fetch(url, web).read_bytes() for _ in range(2)] == [lines("a")] * 2


def test_a_server_that_packs_what_it_sends_is_read() -> None:
    packed = gzip.compress(lines("a") * 100)
    with client([httpx.Response(200, content=packed, headers={"content-encoding": "gzip"})], []) as web:
        assert download.fetch("https://data.test/packed.jsonl", web).read_bytes() == lines("a") * 100


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(404), "the server answered 404"),
        (httpx.Response(200, content=b"<html>", headers={"content-type": "text/html; charset=utf-8"}), "is a web page"),
        (httpx.Response(200, content=b"ab", headers={"content-length": "5"}), "received 2 of 5 bytes"),
        (httpx.Response(302, headers={"location": "http://other.test/rows.jsonl"}), "which is not encrypted"),
    ],
)
def test_an_address_that_leads_to_no_rows_is_one_line_and_leaves_nothing(home: Path, answer: httpx.Response, said: str) -> None:
    with client([answer, httpx.Response(200, content=b"x")], []) as web, pytest.raises(DataError, match=said):
        download.fetch("https://data.test/rows.jsonl", web)
    assert not list((home / "cache" / "downloads").rglob("rows.jsonl"))


def test_a_server_that_is_gone_leaves_what_was_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    def gone(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("gone", request=request)

    with client([httpx.Response(200, content=lines("a"))], []) as web:
        path = download.fetch("https://data.test/rows.jsonl", web)
    with httpx.Client(transport=httpx.MockTransport(gone)) as web:
        assert download.fetch("https://data.test/rows.jsonl", web) == path
        assert "cannot be reached (ConnectError); using the copy downloaded before" in capsys.readouterr().err
        with pytest.raises(DataError, match=r"https://data.test/other.jsonl: cannot be reached"):
            download.fetch("https://data.test/other.jsonl", web)


def test_a_real_server_is_read(tmp_path: Path) -> None:
    import threading
    from functools import partial
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(lines("a") + b"{broken\n"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/rows.jsonl.gz"
        first, second = sources.read(DataSource.model_validate({"path": url}))
        server.shutdown()
    assert first.values["name"] == "a"
    assert second.place == f"{url}:2" and second.fault is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://data.test/a.jsonl", "only https:// addresses are supported"),
        ("s3://bucket/a.jsonl", "only https:// addresses"),
        ("https://me:secret@data.test/a.jsonl", "a URL must not contain a password"), ("file:///etc/passwd", "only https://"),
    ],
)  # fmt: skip
def test_an_address_of_another_kind_is_refused_when_the_recipe_is_read(tmp_path: Path, url: str, said: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"name: a\ndata: {{train: [{{path: '{url}'}}]}}\n")
    with pytest.raises(RecipeError, match=said):
        recipe.load(path, TrainRecipe)


# -- pairs whose answers begin with the prompt


def turns(*texts: str, system: str = "") -> list[dict[str, Any]]:
    said = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    return [{"role": "system", "content": system}, *said] if system else said


@pytest.mark.parametrize(
    ("chosen", "rejected", "asked"),
    [
        (turns("Q", "yes"), turns("Q", "no"), ["Q"]),
        (turns("Q", "yes", system="Be brief."), turns("Q", "no", system="Be brief."), ["Be brief.", "Q"]),
        (turns("First", "so", "Q", "yes"), turns("First", "so", "Q", "no"), ["First", "so", "Q"]),
        (turns("Q", "so", "And?", "yes"), turns("Q", "so", "And?", "no"), ["Q", "so", "And?"]),
        ("yes", "no", ["Q"]),
    ],
)
def test_answers_that_begin_with_the_prompt_are_pairs(tmp_path: Path, chosen: Any, rejected: Any, asked: list[str]) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "chosen": chosen, "rejected": rejected, "score_chosen": 5.0}) + "\n")
    [example] = read(DataSource(path=path), "dpo")
    assert [turn["content"] for turn in example.prompt] == asked  # type: ignore[union-attr]
    assert "yes" in str(example.answers[0]) and "no" in str(example.answers[1])  # type: ignore[union-attr]


def test_answers_that_begin_with_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"prompt": "Q", "chosen": turns("Other", "yes"), "rejected": turns("Other", "no")}) + "\n")
    with pytest.raises(DataError, match=r"chosen should be one turn of the assistant after the prompt, not 2"):
        list(read(DataSource(path=path), "dpo"))


def test_a_split_in_the_middle_of_a_name_counts_and_links_and_empty_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for name in ("news.train.jsonl", "news.test.jsonl"):
        (folder / name).write_bytes(lines(name))
    (folder / "more.train.csv.gz").write_bytes(gzip.compress(b"prompt,completion,name\nHi,Hello,packed\n"))
    (folder / "rest.train.jsonl").write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    source = DataSource(path=folder)
    assert names(source) == ["packed", "news.train.jsonl"]
    assert sources.chosen(source).notes == (
        "not read: linked",
        "empty: rest.train.jsonl",
        "split train is read; not: news.test.jsonl",
    )
