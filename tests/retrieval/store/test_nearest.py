from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbench.errors import IndexError_
from llmbench.retrieval.store.vectors import exact
from llmbench.retrieval.store.vectors import nearest as module
from llmbench.retrieval.store.vectors.nearest import BrokenIndex, Nearest, Plan
from llmbench.retrieval.store.vectors.tuning import EXACT, build, due, made_queries

Floats = NDArray[np.float32]
Rows = NDArray[np.int64]

DIM = 16


def units(shape: tuple[int, ...], seed: int) -> Floats:
    vectors = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def clusters(n: int, seed: int) -> Floats:
    """Vectors around 200 centres, as texts lie around subjects."""
    rng = np.random.default_rng(seed)
    vectors = units((200, DIM), 0)[rng.integers(0, 200, n)] + 0.15 * rng.standard_normal((n, DIM)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def brute(vectors: Floats, query: Floats, k: int) -> Rows:
    scores = np.array([np.dot(v.astype(np.float64), query.astype(np.float64)) for v in vectors])
    order = np.lexsort((np.arange(len(vectors)), -np.round(scores, 7)))
    return np.asarray(order[:k])


def recall(found: Rows, true: Rows) -> float:
    return float(np.mean([np.isin(t, f).mean() for f, t in zip(found, true, strict=True)]))


@pytest.fixture(scope="module")
def big() -> Floats:
    return clusters(60_000, 1)


@pytest.fixture(scope="module")
def inverted(big: Floats) -> Nearest:
    return build(big, kind="ivf")


@pytest.fixture(scope="module")
def graph(big: Floats) -> Nearest:
    return build(big[:25_000], kind="hnsw")


@pytest.fixture(scope="module")
def queries(big: Floats) -> Floats:
    return made_queries(big, np.arange(len(big)), np.random.default_rng(99), 50)


@pytest.fixture(scope="module")
def true(big: Floats, queries: Floats) -> Rows:
    return Nearest().search(big, queries, 10)[1]


def plan_of(nearest: Nearest) -> Plan:
    assert nearest.plan is not None
    return nearest.plan


# Exact search


def test_exact_search_is_brute_force() -> None:
    vectors, queries = units((400, 24), 1), units((5, 24), 2)
    scores, rows = Nearest().search(vectors, queries, 7)
    assert scores.dtype == np.float32 and rows.dtype == np.int64
    for i, query in enumerate(queries):
        assert rows[i].tolist() == brute(vectors, query, 7).tolist()
        assert scores[i] == pytest.approx(vectors[rows[i]] @ query, abs=1e-6)
        assert (np.diff(scores[i]) <= 0).all()


def test_exact_search_goes_over_many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = units((1000, 8), 3), units((3, 8), 4)
    whole = Nearest().search(vectors, queries, 20)
    monkeypatch.setattr(exact, "BLOCK", 64)
    parts = Nearest().search(vectors, queries, 20)
    assert whole[1].tolist() == parts[1].tolist()
    assert whole[0].tolist() == parts[0].tolist()


def test_vectors_may_be_a_view_into_mapped_records(tmp_path: Path) -> None:
    vectors = units((300, 12), 5)
    record = np.dtype([("id", "<i8"), ("crc", "<u4"), ("pad", "<u4"), ("vector", "<f4", (12,))])
    written = np.zeros(300, record)
    written["vector"] = vectors
    written.tofile(tmp_path / "vectors.bin")
    mapped = np.memmap(tmp_path / "vectors.bin", record, "r")["vector"]
    plain, view = Nearest().search(vectors, vectors[:9], 5), Nearest().search(mapped, vectors[:9], 5)
    assert plain[1].tolist() == view[1].tolist()
    assert plain[0].tolist() == view[0].tolist()


def test_equal_vectors_tie_and_come_in_the_order_of_their_rows() -> None:
    vectors = units((500, 40), 6)
    same = np.array([3, 17, 18, 255, 256, 257, 499])  # at different places in BLAS's tiles
    vectors[same] = vectors[3]
    for number in (1, 4):
        scores, rows = Nearest().search(vectors, np.repeat(vectors[3:4], number, axis=0), 5)
        assert rows[0].tolist() == [3, 17, 18, 255, 256]
        assert len(set(scores[0].tolist())) == 1


def test_a_great_many_equal_vectors_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exact, "BLOCK", 32)
    vectors = np.repeat(units((1, 8), 7), 5000, axis=0)
    assert Nearest().search(vectors, vectors[:1], 4)[1].tolist() == [[0, 1, 2, 3]]


def test_fewer_rows_than_asked_for_are_all_there_is() -> None:
    vectors = units((3, 8), 8)
    scores, rows = Nearest().search(vectors, vectors[:2], 10)
    assert scores.shape == rows.shape == (2, 3)
    assert Nearest().search(vectors[:0], vectors[:2], 10)[1].shape == (2, 0)


def test_a_freed_place_is_never_given_to_another_vector() -> None:
    """LlamaIndex's FAISS store: A, B, C, delete A, add D, and a search at C gives D."""
    a, b, c, d = units((4, 8), 9)
    vectors = np.stack([np.zeros_like(a), b, c, d])  # A's row is zeroed, D has a row of its own
    scores, rows = Nearest().search(vectors, c[None], 3, dead=np.array([0]))
    assert rows[0, 0] == 2 and scores[0, 0] == pytest.approx(1)
    assert sorted(rows[0].tolist()) == [1, 2, 3]


# Approximate search


def test_an_inverted_file_reaches_its_target_on_queries_it_never_saw(
    big: Floats, inverted: Nearest, queries: Floats, true: Rows
) -> None:
    plan = plan_of(inverted)
    assert plan.kind == "ivf" and plan.base == 60_000 and plan.queries == 500
    assert plan.low <= plan.recall <= plan.high and plan.recall >= 0.95
    scores, rows = inverted.search(big, queries, 10)
    assert recall(rows, true) > 0.92
    assert scores == pytest.approx(np.einsum("qkd,qd->qk", big[rows], queries), abs=1e-6)


def test_the_callers_questions_measure_where_there_are_enough_and_else_beside_made_ones(big: Floats) -> None:
    rng = np.random.default_rng(5)
    far = made_queries(big, np.arange(len(big)), rng, 300)
    plan = build(big, kind="ivf", queries=far).plan
    assert plan is not None and (plan.asked, plan.queries, plan.own) == ("own", 150, 0)
    assert plan.recall >= 0.95 and str(plan).endswith("on 150 of the pipeline's questions")
    few = build(big, kind="ivf", queries=far[:40]).plan
    assert few is not None and (few.asked, few.queries, few.own) == ("made", 500, 40)
    assert min(few.recall, few.own_recall) >= 0.95
    assert str(few).endswith(f"on 500 synthetic queries and {few.own_recall:.3f} on 40 of the pipeline's questions")


def test_a_plan_that_was_kept_before_these_figures_were_known_is_read(inverted: Nearest) -> None:
    assert inverted.plan is not None
    stored = {key: value for key, value in asdict(inverted.plan).items() if key not in ("asked", "own", "own_recall")}
    assert Plan(**stored) == inverted.plan and str(inverted.plan).endswith("on 500 synthetic queries")


def test_a_graph_reaches_its_target(big: Floats, graph: Nearest, queries: Floats) -> None:
    few = big[:25_000]
    assert plan_of(graph).kind == "hnsw" and plan_of(graph).recall >= 0.95
    rows = graph.search(few, queries, 10)[1]
    assert recall(rows, Nearest().search(few, queries, 10)[1]) > 0.92


def test_scores_of_both_ways_are_the_same_to_the_last_bit(big: Floats, inverted: Nearest, queries: Floats) -> None:
    near = dict(zip(*reversed([a[0].tolist() for a in inverted.search(big, queries[:1], 10)]), strict=True))
    sure = dict(zip(*reversed([a[0].tolist() for a in Nearest().search(big, queries, 10)]), strict=True))
    both = near.keys() & sure.keys()
    assert both and all(near[row] == sure[row] for row in both)


def test_the_same_seed_builds_the_same(big: Floats, queries: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FEW", 100)
    few = big[:8000]
    one, again = build(few, kind="ivf"), build(few, kind="ivf")
    assert replace(plan_of(again), seconds=0) == replace(plan_of(one), seconds=0)
    assert again.search(few, queries, 10)[1].tolist() == one.search(few, queries, 10)[1].tolist()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.34, 0.1, 0.01, 1e-3, 1e-4])
def test_a_filter_gives_as_many_as_match_whatever_it_leaves(
    big: Floats, inverted: Nearest, queries: Floats, share: float
) -> None:
    """LangChain's FAISS store filters the best 20 afterwards, and a rare value finds nothing."""
    rows = np.sort(np.random.default_rng(7).choice(len(big), int(share * len(big)), replace=False))
    scores, found = inverted.search(big, queries, 10, rows=rows)
    sure = Nearest().search(big, queries, 10, rows=rows)
    assert found.shape == (len(queries), min(10, len(rows)))
    assert np.isin(found, rows).all()
    if len(rows) <= module.FEW:
        assert found.tolist() == sure[1].tolist() and scores.tolist() == sure[0].tolist()
    else:
        assert recall(found, sure[1]) > 0.92


def test_a_filter_that_leaves_nothing_finds_nothing(big: Floats, inverted: Nearest, queries: Floats) -> None:
    assert inverted.search(big, queries, 10, rows=np.zeros(0, np.int64))[1].shape == (50, 0)
    assert inverted.search(big, queries, 10, rows=np.array([5]), dead=np.array([5]))[1].shape == (50, 0)


def test_a_filter_that_leaves_only_other_subjects_finds_the_best_of_them(big: Floats, inverted: Nearest) -> None:
    centres = units((200, DIM), 0)
    query = centres[:1]
    other = np.argsort(centres @ query[0])[:100]  # the half of the subjects that is farthest from the query
    rows = np.flatnonzero(np.isin((big @ centres.T).argmax(axis=1), other))
    assert len(rows) > module.FEW
    _, found = inverted.search(big, query, 10, rows=rows)
    assert found.shape == (1, 10) and np.isin(found, rows).all()
    assert recall(found, Nearest().search(big, query, 10, rows=rows)[1]) >= 0.8


def test_a_selection_is_made_once_for_the_same_arrays(big: Floats, inverted: Nearest, queries: Floats) -> None:
    rows, dead = np.arange(0, 60_000, 3), np.arange(0, 60_000, 6)
    first = inverted.search(big, queries[:1], 5, rows=rows, dead=dead)[1]
    kept = list(inverted._selections.values())[-1]
    assert inverted.search(big, queries[:1], 5, rows=rows, dead=dead)[1].tolist() == first.tolist()
    assert list(inverted._selections.values())[-1] is kept
    assert (inverted.search(big, queries[:1], 5, rows=rows)[1] % 3 == 0).all()  # other arrays, another selection
    for start in range(20):
        inverted.search(big, queries[:1], 5, rows=np.arange(start, 60_000, 2))
    assert len(inverted._selections) <= module.KEPT


@pytest.mark.parametrize("kind", ["inverted", "graph"])
def test_deleted_rows_never_come_back(big: Floats, queries: Floats, kind: str, request: pytest.FixtureRequest) -> None:
    nearest: Nearest = request.getfixturevalue(kind)
    vectors = big[: nearest.base]
    dead = np.unique(nearest.search(vectors, queries, 100)[1])  # all that these queries find
    _, found = nearest.search(vectors, queries, 10, dead=dead)
    assert found.shape == (50, 10) and not np.isin(found, dead).any()
    assert (
        recall(found, Nearest().search(vectors, queries, 10, dead=dead)[1]) > 0.75
    )  # the 100 nearest of every query at once: what is left lies far out
    rows = np.arange(len(vectors))
    assert not np.isin(nearest.search(vectors, queries, 10, rows=rows, dead=dead)[1], dead).any()


def test_rows_written_since_are_found_at_once(big: Floats, inverted: Nearest, queries: Floats) -> None:
    grown = np.concatenate([big, queries, clusters(500, 5)])
    scores, rows = inverted.search(grown, queries, 10)
    assert rows[:, 0].tolist() == list(range(60_000, 60_050)) and scores[:, 0] == pytest.approx(1)
    assert recall(rows, Nearest().search(grown, queries, 10)[1]) > 0.92
    without = inverted.search(grown, queries, 10, dead=np.arange(60_000, 60_050))[1]
    assert not np.isin(without, np.arange(60_000, 60_050)).any()
    only = inverted.search(grown, queries, 10, rows=np.arange(60_010, 60_015))[1]
    assert sorted(only[0].tolist()) == list(range(60_010, 60_015))


def test_rows_deleted_before_it_was_built_are_not_found(big: Floats) -> None:
    vectors, dead = big[:25_000].copy(), np.arange(0, 25_000, 4)
    vectors[dead] = 0
    nearest = build(vectors, dead=dead, kind="ivf")
    assert plan_of(nearest).recall >= 0.95
    assert not np.isin(nearest.search(vectors, vectors[1:50], 10, dead=dead)[1], dead).any()


def test_given_questions_are_measured_with(big: Floats) -> None:
    nearest = build(big[:25_000], kind="ivf", queries=units((300, DIM), 12))
    assert plan_of(nearest).queries == 150


# When one is built


def test_small_collections_are_compared_exactly(big: Floats) -> None:
    assert build(big[:5000]).plan is None
    assert build(big, kind="exact").plan is None
    assert build(big[:1000], kind="ivf").plan is None


def test_what_no_index_reaches_is_compared_exactly(big: Floats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmbench.retrieval.store.vectors.tuning.EXACT", 4000)
    monkeypatch.setattr("llmbench.retrieval.store.vectors.tuning._interval", lambda shares: (0.9, 0.89, 0.91))
    assert build(big[:4500], target_recall=0.95).plan is None


def test_building_is_due_when_the_collection_or_its_tail_is_large(inverted: Nearest) -> None:
    assert not due(Nearest(), EXACT, 0) and due(Nearest(), EXACT + 1, 0)
    assert not due(Nearest(), EXACT + 1, 1) and not due(Nearest(), 10**6, 0, "exact")
    assert due(Nearest(), 5000, 0, "hnsw") and not due(Nearest(), 500, 0, "hnsw")
    assert not due(inverted, 60_000, 0) and not due(inverted, 70_000, 0) and due(inverted, 70_001, 0)
    assert due(inverted, 60_000, 0, "hnsw")


def test_progress_is_told(big: Floats) -> None:
    told: list[tuple[str, int, int]] = []
    build(big[:2500], kind="ivf", progress=lambda *what: told.append(what))
    assert told[0][0] == "exact answers" and ("adding vectors", 2500, 2500) in told
    assert all(0 <= done <= total for _, done, total in told)


# The file


@pytest.mark.parametrize("kind", ["inverted", "graph"])
def test_what_was_saved_is_loaded(
    big: Floats, queries: Floats, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    nearest: Nearest = request.getfixturevalue(kind)
    plan = nearest.save(tmp_path / "nearest.faiss")
    loaded = Nearest.load(tmp_path / "nearest.faiss", plan)
    assert [path.name for path in tmp_path.iterdir()] == ["nearest.faiss"]
    vectors = big[: nearest.base]
    assert loaded.search(vectors, queries, 10)[1].tolist() == nearest.search(vectors, queries, 10)[1].tolist()


@pytest.mark.parametrize("harm", ["flip", "cut", "grow", "empty", "gone"])
def test_a_damaged_file_is_refused(inverted: Nearest, tmp_path: Path, harm: str) -> None:
    path = tmp_path / "nearest.faiss"
    plan = inverted.save(path)
    data = bytearray(path.read_bytes())
    match harm:
        case "flip":
            data[len(data) // 2] ^= 1
        case "cut":
            del data[-1000:]
        case "grow":
            data += b"\0"
        case "empty":
            data.clear()
    path.write_bytes(data)
    if harm == "gone":
        path.unlink()
    with pytest.raises(BrokenIndex, match=r"nearest\.faiss .*rebuilt"):
        Nearest.load(path, plan)


@pytest.mark.parametrize("change", [{"base": 59_999}, {"dim": 17}, {"kind": "hnsw"}])
def test_a_file_of_another_kind_or_size_is_refused(inverted: Nearest, tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "nearest.faiss"
    plan = inverted.save(path)
    with pytest.raises(BrokenIndex, match="holds IndexIVFPQFastScan of 60000 x 16"):
        Nearest.load(path, replace(plan, **change))  # type: ignore[arg-type]


def test_a_file_that_claims_to_be_huge_is_refused(inverted: Nearest, tmp_path: Path) -> None:
    import faiss

    path = tmp_path / "nearest.faiss"
    inverted.save(path)
    before = faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit()
    data = bytearray(path.read_bytes())
    lists = plan_of(inverted).lists
    place = data.find((lists * DIM * 4).to_bytes(8, "little"))  # the length of the centroids
    place = data.find((lists * DIM).to_bytes(8, "little")) if place < 0 else place
    assert place > 0
    data[place : place + 8] = (2**60).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(BrokenIndex, match="cannot be read"):
        Nearest.load(path, replace(plan_of(inverted), checksum=module.checksum(path)))
    assert before == (faiss.get_deserialization_vector_byte_limit(), faiss.get_deserialization_loop_limit())


def test_a_full_disk_leaves_what_was_there(inverted: Nearest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "nearest.faiss"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(IndexError_, match="Free some space"):
        inverted.save(path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
