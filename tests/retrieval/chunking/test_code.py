"""Source code: definitions stay whole, what is around them is in the title, other languages are cut by tokens."""

from __future__ import annotations

import sys

import pytest

from llmbench.errors import MissingPackage
from llmbench.retrieval.chunking import Chunk, chunks
from llmbench.retrieval.chunking import code as cutting
from llmbench.retrieval.documents import Document
from llmbench.retrieval.embedding import Embedder

SHOP = '''"""A shop."""

import json
from decimal import Decimal


# What a thing costs.
PRICES = {"kettle": 20}


class Cart(dict):
    """Holds what is bought until it is paid for, and knows its total at any time of the day."""

    size = 3

    # Adds up.
    @property
    def total(self) -> Decimal:
        """The sum of all the prices of everything that is in the cart, with the tax."""
        return Decimal(sum(PRICES[name] * number for name, number in self.items()))

    def save(self, path):
        """Writes the cart to a file, with how many there are."""
        with open(path, "w") as file:
            json.dump(dict(self), file, indent=2, sort_keys=True)


def ÿ(größe):
    """Ünïcödé."""
    return größe
'''


def cut(text: str, embedder: Embedder, name: str = "shop.py", size: int = 64, parent: int | None = None) -> list[Chunk]:
    document = Document("0", name, name, text, "code")
    return chunks(document, embedder, max_tokens=size, overlap=0, method="code", parent_tokens=parent)


def test_methods_are_whole_with_their_decorators_and_comments(embedder: Embedder) -> None:
    found = {chunk.text.split("def ")[-1].split("(")[0]: chunk for chunk in cut(SHOP, embedder) if "def " in chunk.text}
    assert found["total"].text.startswith("    # Adds up.\n    @property\n    def total") and found["total"].text.endswith(
        ".items()))"
    )
    assert found["total"].title == "shop.py (from decimal import Decimal) > class Cart(dict)"
    assert found["save"].title == "shop.py (import json) > class Cart(dict)"
    assert found["ÿ"].text == 'def ÿ(größe):\n    """Ünïcödé."""\n    return größe' and found["ÿ"].title == "shop.py"


def test_the_head_of_a_class_goes_with_what_follows(embedder: Embedder) -> None:
    [head] = [chunk for chunk in cut(SHOP, embedder) if "class Cart" in chunk.text]
    assert head.text.startswith("class Cart(dict):") and "size = 3" in head.text and head.title == "shop.py"


def test_what_fits_is_one_passage(embedder: Embedder) -> None:
    assert any(chunk.text.startswith("class Cart") and "json.dump" in chunk.text for chunk in cut(SHOP, embedder, size=200))


def test_a_class_is_the_parent_of_its_methods(embedder: Embedder) -> None:
    found = [chunk for chunk in cut(SHOP, embedder, parent=200) if "Cart" in chunk.title]
    assert len(found) >= 2 and len({chunk.parent for chunk in found}) == 1
    start, end = found[0].parent or (0, 0)
    assert SHOP[start:end].startswith("class Cart(dict)") and SHOP[start:end].endswith("sort_keys=True)")


SAMPLES = {
    "a.js": "import { read } from 'fs';\nclass A {\n  one() { return read(1); }\n  two() { return 2; }\n}\n",
    "a.ts": "export class A {\n  one(): number { return 1; }\n  two(): number { return 2; }\n}\n",
    "a.tsx": "export function A() {\n  const x = 1;\n  return <b>{x}</b>;\n}\n",
    "A.java": "class A {\n  int one() { return 1; }\n  int two() { return 2; }\n}\n",
    "a.go": "package a\n\nfunc One() int {\n\treturn 1\n}\n\nfunc Two() int {\n\treturn 2\n}\n",
    "a.rs": "struct A;\n\nimpl A {\n    fn one() -> i32 { 1 }\n    fn two() -> i32 { 2 }\n}\n",
    "a.c": "#include <stdio.h>\n\nint one(void) {\n  return 1;\n}\n\nint two(void) {\n  return 2;\n}\n",
    "a.cpp": "namespace n {\nclass A {\n  int one() { return 1; }\n  int two() { return 2; }\n};\n}\n",
    "a.cs": "namespace N {\n  class A {\n    int One() { return 1; }\n    int Two() { return 2; }\n  }\n}\n",
    "a.rb": "class A\n  def one\n    puts 1\n  end\n\n  def two\n    puts 2, 2, 2\n  end\nend\n",
    "a.php": "<?php\nclass A {\n  function one() { return 1; }\n  function two() { return 2; }\n}\n",
    "a.sh": "one() {\n  echo 1\n}\n\ntwo() {\n  echo 2\n}\n",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_language_is_cut_between_its_definitions(embedder: Embedder, name: str) -> None:
    text = SAMPLES[name]
    found = cut(text, embedder, name, size=16)
    assert {chunk.method for chunk in found} == {"code"} and len(found) > 1
    assert "".join("".join(chunk.text.split()) for chunk in found) == "".join(text.split())
    both = [chunk for chunk in found if "one" in chunk.text.lower() and "two" in chunk.text.lower()]
    assert both == []


def test_an_unknown_language_is_cut_by_tokens_and_says_so(embedder: Embedder) -> None:
    assert {chunk.method for chunk in cut("MOV A, B\n" * 40, embedder, "a.asm")} == {"tokens"}


def test_broken_and_deeply_nested_code_is_still_cut(embedder: Embedder) -> None:
    for text in ("def f(:\n  class ((( x =\n" * 20, "x = " + "[" * 3000 + "]" * 3000, "💥 = 1\ny = 2\n" * 30):
        found = cut(text, embedder)
        assert max(chunk.tokens for chunk in found) <= 64
        assert {"".join(text.split())} == {"".join("".join(chunk.text.split()) for chunk in found)}


def test_a_grammar_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, embedder: Embedder) -> None:
    monkeypatch.setitem(sys.modules, "tree_sitter_go", None)
    cutting._parser.cache_clear()
    with pytest.raises(MissingPackage, match="tree-sitter-go"):
        cut("package a\n", embedder, "a.go")
