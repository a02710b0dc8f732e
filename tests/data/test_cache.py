"""The cache of prepared rows: found again, never stale, never half."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from tests.data.conftest import talk, write_jsonl

from llmbench import data
from llmbench.data.cache import Hashes, key
from llmbench.errors import DataError
from llmbench.recipe import DataSource, DataSpec

WARM = """
    import json, sys
    from pathlib import Path
    from llmbench import data
    from llmbench.recipe import DataSource, DataSpec

    def never():
        raise SystemExit("the tokenizer was loaded")

    found = data.load(DataSpec(train=[DataSource(path=Path(sys.argv[1]))]), never, folder=Path(sys.argv[2]))
    heavy = [name for name in ("torch", "transformers", "trl", "tokenizers", "jinja2") if name in sys.modules]
    print(json.dumps([found.train[0]["input_ids"], found.train_report.rows, heavy]))
"""


def folders(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "cache" / "data").iterdir())


def test_a_warm_cache_needs_no_tokenizer_and_no_heavy_package(tmp_path: Path, tokenizer: Any, tiny: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))
    cold = data.load(DataSpec(train=[DataSource(path=path)]), lambda: tokenizer, folder=tiny)
    run = [sys.executable, "-c", textwrap.dedent(WARM), str(path), str(tiny)]
    warm = subprocess.run(run, capture_output=True, text=True, check=True, env=os.environ)
    assert json.loads(warm.stdout) == [cold.train[0]["input_ids"], 1, []]


def test_the_cache_is_closed_to_others_and_leaves_nothing_half_made(tmp_path: Path, tokenizer: Any, home: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))
    data.load(DataSpec(train=[DataSource(path=path)]), tokenizer)
    assert (home / "cache").stat().st_mode & 0o777 == 0o700
    [name] = folders(home)
    assert not name.startswith(".")
    path.write_text("{", encoding="utf-8")
    with pytest.raises(DataError):
        data.load(DataSpec(train=[DataSource(path=path)]), tokenizer)
    assert folders(home) == [name]


def test_whatever_matters_changes_the_key(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))

    def of(tokenizer: str = "t", template: str | None = None, seed: int = 0, fraction: float = 0, **settings: Any) -> str:
        names = DataSource.model_fields.keys() & settings.keys()
        source = DataSource(path=path, **{name: settings.pop(name) for name in names})
        return key(DataSpec(train=[source], **settings), [source], tokenizer, template, fraction, seed, Hashes(tmp_path))

    keys = [
        of(), of("u"), of(template="{{x}}"), of(max_length=9), of(over_length="drop"), of(bad_rows="skip"), of(train_on="all"),
        of(chat_template="{{x}}y"), of(chat_template_kwargs={"a": 1}), of(columns={"messages": "m"}), of(format="messages"),
        of(limit=1), of(weight=2), of(fraction=0.1), of(fraction=0.1, seed=1), of(encoding="latin-1"),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert of() == of(seed=1) == of(eval_fraction=0.5, shuffle=False)
    write_jsonl(path, talk("Hi", "Holla"))
    assert of() not in keys


def test_a_file_changed_in_place_is_read_again(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello"))
    first = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer).train[0]["input_ids"]
    write_jsonl(path, talk("Hi", "Holla"))
    second = data.load(DataSpec(train=[DataSource(path=path)]), tokenizer).train[0]["input_ids"]
    assert first != second


def test_a_changed_function_formats_anew(tmp_path: Path, tokenizer: Any) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", {"q": "Hi"})
    own = tmp_path / "own.py"
    spec = DataSpec(train=[DataSource(path=path, formatting=_own(own, "Hello"))])
    assert "Hello" in tokenizer.decode(data.load(spec, tokenizer).train[0]["input_ids"])
    _own(own, "Goodbye")
    assert "Goodbye" in tokenizer.decode(data.load(spec, tokenizer).train[0]["input_ids"])


def _own(path: Path, answer: str) -> str:
    path.write_text(f'def said(row):\n    return {{"prompt": row["q"], "completion": "{answer}"}}\n', encoding="utf-8")
    return f"{path}:said"


@pytest.mark.parametrize("harm", ["flip", "cut", "report", "gone"])
def test_a_broken_cache_is_made_anew_and_says_so(tmp_path: Path, tokenizer: Any, home: Path, harm: str) -> None:
    spec = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello")))])
    first = data.load(spec, tokenizer).train[0]
    [name] = folders(home)
    rows = home / "cache" / "data" / name / "rows.arrow"
    match harm:
        case "flip":
            content = bytearray(rows.read_bytes())
            content[len(content) // 2] ^= 1
            rows.write_bytes(content)
        case "cut":
            rows.write_bytes(rows.read_bytes()[:-100])
        case "report":
            rows.with_name("report.json").write_text("{", encoding="utf-8")
        case "gone":
            rows.unlink()
    again = data.load(spec, tokenizer)
    assert again.train[0] == first
    assert any("and was rebuilt" in note for note in again.train_report.remarks())
    assert data.load(spec, tokenizer).train[0] == first
    assert folders(home) == [name]


def test_three_at_once_make_it_once(tmp_path: Path, tokenizer: Any, tiny: Path, home: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    spec = DataSpec(train=[DataSource(path=write_jsonl(tmp_path / "a.jsonl", *[talk(f"Hi {i}", "Hello") for i in range(50)]))])
    loaded: list[int] = []

    def load(number: int) -> Any:
        def once() -> Any:
            loaded.append(number)
            return tokenizer

        return data.load(spec, once, folder=tiny).train["input_ids"][:]

    with ThreadPoolExecutor(3) as pool:
        first, *others = pool.map(load, range(3))
    assert len(first) == 50 and others == [first, first]
    assert len(loaded) == 1 and len(folders(home)) == 1


def test_the_name_of_prepared_rows_follows_from_all_code_that_prepares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = DataSource(path=write_jsonl(tmp_path / "a.jsonl", talk("Hi", "Hello")))

    def name() -> str:
        return key(DataSpec(train=[source]), [source], "tokenizer", None, 0, 0, Hashes(tmp_path))

    before, read = name(), Path.read_bytes
    for part in ("rows.py", "files.py", "sandbox.py"):  # of the house, of data and of turns
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda path, part=part: read(path) + (b"#" if path.name == part else b""))
            assert name() != before, part
    assert name() == before
