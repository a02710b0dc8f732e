"""Rerankers that are real: a small cross-encoder trained here, MiniLM's token vectors, a ColBERT with its projection."""

from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbench import hardware
from llmbench.errors import LlmbenchError
from llmbench.recipe.rag import RerankSpec
from llmbench.retrieval.embedding import locate
from llmbench.retrieval.search.rerank import Reranker, maxsim
from llmbench.retrieval.search.windows import windows

PACKAGED = "all-MiniLM-L6-v2"
THINGS = [
    "kettle", "lamp", "chair", "table", "clock", "radio", "knife", "shovel", "bottle", "camera", "piano", "hammer", "bicycle",
    "window", "carpet", "mirror", "pillow", "basket", "blanket", "ladder", "candle", "helmet", "guitar", "teapot", "bucket",
    "violin", "wheel", "saddle",
]  # fmt: skip
MATTERS = ["brass", "oak", "copper", "glass", "steel", "silver", "plastic", "clay"]
PRICES = ["nine", "twelve", "thirty", "forty", "ninety", "seventy"]


def facts(thing: str, rng: random.Random) -> list[tuple[str, str]]:
    """Questions with their passages."""
    return [
        (f"What is the {thing} made of?", f"The {thing} is made of {rng.choice(MATTERS)}."),
        (f"What does the {thing} cost?", f"The {thing} costs {rng.choice(PRICES)} euros."),
        (f"Who repairs the {thing}?", f"The {thing} is repaired by the workshop in the old town."),
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of MiniLM with a head, trained on all things but the last four: a real, small cross-encoder."""
    import torch
    from sentence_transformers import CrossEncoder

    folder = tmp_path_factory.mktemp("reranker")
    torch.manual_seed(0)
    rng = random.Random(0)
    given: dict[str, Any] = {"num_labels": 1, "device": "cpu", "max_length": 64, "config_kwargs": {"num_hidden_layers": 2}}
    model: Any = CrossEncoder(str(locate(PACKAGED)), **given)
    for weights in model[0].model.bert.embeddings.parameters():
        weights.requires_grad_(False)  # half of all weights, and good as they are
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    head = list(model[0].model.classifier.parameters())
    body = [weights for name, weights in model.named_parameters() if weights.requires_grad and "classifier" not in name]
    optimizer = torch.optim.AdamW([{"params": body, "lr": 3e-4}, {"params": head, "lr": 3e-3}])
    model.train()
    for _ in range(40):
        pairs = []
        for _ in range(4):
            thing, *others = rng.sample(THINGS[:-4], 4)
            at = rng.randrange(3)
            question, right = facts(thing, rng)[at]
            pairs += [(question, right)] + [(question, facts(other, rng)[at][1]) for other in others]
        scores = model(model.preprocess(pairs))["scores"].view(4, 4)
        loss = torch.nn.functional.cross_entropy(scores, torch.zeros(4, dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    model.save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def cross(trained: Path) -> Reranker:
    return Reranker(RerankSpec(model_name_or_path=str(trained)))


@pytest.fixture(scope="module")
def late() -> Reranker:
    return Reranker(RerankSpec(model_name_or_path=PACKAGED, kind="late-interaction"))


def test_a_cross_encoder_ranks_things_that_its_training_did_not_name(cross: Reranker) -> None:
    rng = random.Random(1)
    first = 0
    for thing in THINGS[-4:]:
        for kind, (question, right) in enumerate(facts(thing, rng)):
            wrong = [facts(other, rng)[kind][1] for other in THINGS[:12]]
            first += int(cross.scores(question, [*wrong[:6], right, *wrong[6:]]).argmax() == 6)
    assert first >= 9  # of 12 questions; by chance one


def test_its_scores_are_the_librarys_own(cross: Reranker, trained: Path) -> None:
    from sentence_transformers import CrossEncoder

    pairs = [(question, passage) for question, passage in facts("violin", random.Random(2))]
    model: Any = CrossEncoder(str(trained), device="cpu", local_files_only=True)
    model = model.bfloat16() if hardware.machine("cpu").bfloat16 else model
    for question, passage in pairs:
        [score] = cross.scores(question, [passage])
        assert score == pytest.approx(float(model.predict([(question, passage)])[0]), abs=0.02)
        assert 0 <= score <= 1
    assert cross.scale == "probability, 0 to 1"


def test_a_long_passage_is_scored_by_its_best_window_and_says_so(cross: Reranker) -> None:
    filler = " ".join(f"Some words of no use number {i} stand here." for i in range(30))
    answer = "The violin is made of oak."
    long = f"{filler} {answer} {filler}"
    judged = cross.judge("What is the violin made of?", [answer, filler, long])
    assert judged.windows[0] == 1 and judged.windows[1] > 3 and judged.windows[2] > judged.windows[1]
    assert judged.scores[2] > judged.scores[1]
    assert judged.scores.dtype == np.float32 and judged.scores.shape == (3,) and not judged.query_cut


def test_a_query_longer_than_half_the_window_is_cut_and_says_so(cross: Reranker, late: Reranker) -> None:
    long = "What is the violin made of? " * 40
    judged = cross.judge(long, ["The violin is made of oak."])
    assert judged.query_cut and judged.windows == (1,)
    assert late.judge(long, ["The violin is made of oak."]).query_cut
    assert not late.judge("What is it made of?", ["The violin is made of oak."]).query_cut


def test_no_candidates_are_no_scores(cross: Reranker, late: Reranker) -> None:
    assert cross.scores("What?", []).shape == late.scores("What?", []).shape == (0,)


def test_the_order_of_candidates_and_threads_do_not_change_scores(cross: Reranker) -> None:
    passages = [passage for thing in THINGS for _, passage in facts(thing, random.Random(3))]
    alone = cross.scores("What does the wheel cost?", passages)
    turned = cross.scores("What does the wheel cost?", passages[::-1])[::-1]
    assert np.abs(alone - turned).max() < 1e-2
    with ThreadPoolExecutor(4) as pool:
        for scores in pool.map(lambda _: cross.scores("What does the wheel cost?", passages), range(4)):
            assert np.abs(alone - scores).max() < 1e-5


def test_maxsim_is_the_mean_of_the_best_matches() -> None:
    query = np.array([[1, 0], [0, 1]], dtype=np.float32)
    document = np.array([[0.6, 0.8], [1, 0], [0, -1]], dtype=np.float32)
    assert maxsim(query, document) == pytest.approx((1 + 0.8) / 2)
    assert maxsim(query, document[:0]) == -1


def test_late_interaction_of_a_plain_model_is_maxsim_of_its_last_layer(late: Reranker) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    query, passages = "What is the lamp made of?", ["The lamp is made of brass.", "Money is paid back within 14 days."]
    model: Any = SentenceTransformer(str(locate(PACKAGED)), device="cpu")

    def tokens(text: str) -> Any:
        vectors = model.encode(text, output_value="token_embeddings", convert_to_numpy=False)
        return torch.nn.functional.normalize(vectors.float(), dim=-1)

    expected = [float((tokens(query) @ tokens(passage).T).max(dim=1).values.mean()) for passage in passages]
    scores = late.scores(query, passages)
    assert scores == pytest.approx(expected, abs=0.02)
    assert scores[0] > scores[1]
    assert late.scale == "mean MaxSim, -1 to 1"


def test_a_colbert_checkpoint_is_used_with_its_projection_and_its_way_with_queries(tmp_path: Path) -> None:
    import torch
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer
    from sentence_transformers.base.modules import Dense, Normalize
    from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

    torch.manual_seed(0)
    first: Any = SentenceTransformer(str(locate(PACKAGED)), device="cpu")[0]
    first.query_length = 32
    first.query_expansion = {"strategy": "fixed", "attend": False, "length": 32}
    project = Dense(384, 128, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings")
    made: Any = MultiVectorEncoder(
        modules=[first, project, MultiVectorMask(["."]), Normalize(module_input_name="token_embeddings")],
        similarity_fn_name="meanmaxsim",
        device="cpu",
    )
    made.save_pretrained(str(tmp_path / "colbert"))
    reranker = Reranker(RerankSpec(model_name_or_path=str(tmp_path / "colbert"), kind="late-interaction"))
    query, passages = "What is the lamp made of?", ["The lamp is made of brass.", "Money is paid back within 14 days."]
    expected = made.similarity(made.encode_query([query]), made.encode_document(passages))[0]
    assert made.encode_query(query).shape == (32, 128)
    assert reranker.scores(query, passages) == pytest.approx(expected.tolist(), abs=0.02)


@pytest.mark.parametrize("room", [8, 20, 61])
def test_windows_hold_every_word_and_no_more_than_fits(late: Reranker, room: int) -> None:
    late.load()
    offsets = late._offsets
    text = " ".join(f"Antidisestablishmentarianism {i} stood; unbelievably, it fell." for i in range(40))
    pieces = windows(text, room, offsets)
    assert all(len(offsets(piece)) <= room and piece in text for piece in pieces)
    words = {word for piece in pieces for word in piece.split()}
    assert set(text.split()) <= words and (room == 8 or set(text.split()) == words)  # one word alone is more than 8 tokens
    assert windows("short", room, offsets) == ["short"]
    unbroken = "x" * 2000
    assert len("".join(windows(unbroken, room, offsets))) >= 2000


def test_a_model_without_a_trained_head_is_refused_as_a_cross_encoder() -> None:
    with pytest.raises(LlmbenchError, match=r"not a cross-encoder.*set kind: late-interaction"):
        Reranker(RerankSpec(model_name_or_path=PACKAGED))


def test_folders_that_could_run_code_are_refused(trained: Path, tmp_path: Path) -> None:
    def changed(name: str, **more: object) -> RerankSpec:
        folder = tmp_path / name
        shutil.copytree(trained, folder)
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | more))
        return RerankSpec(model_name_or_path=str(folder))

    with pytest.raises(LlmbenchError, match="asks for code"):
        Reranker(changed("map", auto_map={"AutoModel": "own.Model"}))
    with pytest.raises(LlmbenchError, match=r"not a layer of torch\.nn"):
        Reranker(changed("call", sentence_transformers={"activation_fn": "torch.hub.list"}))
    spec = changed("pickle")
    (tmp_path / "pickle" / "model.safetensors").rename(tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(LlmbenchError, match="is a pickle"):
        Reranker(spec)


def test_a_model_that_is_nowhere_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LlmbenchError, match="neither a folder nor in the hub's cache") as raised:
        Reranker(RerankSpec(model_name_or_path="nobody/nothing"))
    assert "\n" not in str(raised.value)
    with pytest.raises(LlmbenchError, match=r"no config\.json"):
        Reranker(RerankSpec(model_name_or_path=str(tmp_path)))
