"""Search among millions: an index that is kept, its recall measured; here with a low threshold."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas
import pytest

from headstart.engine.device import choose
from headstart.evaluate.neighbours import nearest
from headstart.use import index
from headstart.use.embed import embed
from headstart.use.embeddings import Embeddings, read
from headstart.use.load import Run
from headstart.use.mapped import write_map
from headstart.use.search import search
from headstart.use.select import compare, of_nearest, select

COMPUTE = choose("cpu", "float32", threads=1)


@pytest.fixture
def kept(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Embeddings:
    monkeypatch.setattr(index, "APPROXIMATE_FROM", 20)
    embed(run, photos, tmp_path / "all.npz", compute=COMPUTE, quiet=True)
    return read(tmp_path / "all.npz", COMPUTE)


def test_an_index_answers_as_an_exact_search_does(
    kept: Embeddings, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("usearch")
    query = photos / "ring" / "01.png"
    (found,) = search(kept, query, top=5)
    said = capsys.readouterr().err
    assert "recall at 10 1.000 (95 % interval 0.99" in said
    (exact,) = search(replace(kept, file=None), query, top=5)
    assert [m.name for m in found.found] == [m.name for m in exact.found]
    assert found.found[0].similarity == pytest.approx(exact.found[0].similarity, abs=1e-5)


def test_the_index_is_built_once_and_again_for_other_rows(
    kept: Embeddings, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch")
    times: list[int] = []
    real = index.built

    def built(features: np.ndarray) -> Any:
        times.append(len(features))
        return real(features)

    monkeypatch.setattr(index, "built", built)
    query = photos / "ring" / "02.png"
    first = search(kept, query, top=5)
    assert search(kept, query, top=5) == first
    assert times == [60]
    fewer = replace(
        kept, names=kept.names[:50], kept=kept.features[:50], labels=kept.labels[:50], digests=kept.digests[:50]
    )
    search(fewer, query, top=5)
    assert times == [60, 50]
    assert kept.file is not None
    beside = kept.file.with_name("all.npz.usearch")
    beside.write_bytes(beside.read_bytes()[:100])
    assert search(fewer, query, top=5)
    assert times == [60, 50, 50]


def test_recall_on_many_rows_is_measured_against_the_exact_answer() -> None:
    pytest.importorskip("usearch")
    draws = np.random.default_rng(0)
    rows = (draws.normal(size=(50, 32))[draws.integers(0, 50, 4000)] + draws.normal(size=(4000, 32))).astype(np.float32)
    graph = index.built(rows)
    found, asked = index.recall_of(lambda queries, top: index._ranked(graph, queries, rows, top)[0], rows)
    assert asked == 2000
    assert found / asked > 0.95
    wrong = index.recall_of(lambda queries, top: np.zeros((len(queries), top), np.int64), rows)[0]
    assert wrong < 400
    indices, values = index._ranked(graph, rows[:20], rows, 3)
    np.testing.assert_allclose(values[:, 0], nearest(rows[:20], rows, 1)[1][:, 0], atol=1e-5)
    assert (np.diff(values, axis=1) <= 0).all()
    assert indices.shape == (20, 3)


def test_what_an_index_finds_of_all_pairs_is_what_comparing_all_finds(
    kept: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("usearch")
    whole = select(kept, 5, similarity=0.99)
    write_map(kept, tmp_path / "whole")
    monkeypatch.setattr(index, "ALL_PAIRS", 20)
    for within in (kept, replace(kept, file=None)):  # with and without a place to keep the index
        found = select(within, 5, similarity=0.99)
        assert [pair[:2] for pair in found.duplicates] == [pair[:2] for pair in whole.duplicates]
        assert [name for name, _ in found.outliers] == [name for name, _ in whole.outliers]
        assert found.outliers[0][1] == pytest.approx(whole.outliers[0][1], abs=1e-5)
        assert found.label_next == whole.label_next
    write_map(kept, tmp_path / "index")
    before, after = (pandas.read_csv(tmp_path / folder / "map.csv") for folder in ("whole", "index"))
    assert np.allclose(before["similarity"], after["similarity"], atol=1e-5)
    assert before.drop(columns="similarity").equals(after.drop(columns="similarity"))


def test_more_twins_than_are_looked_at_leave_one_of_each_group() -> None:
    rows = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    exact, _ = compare(rows, 0.999)
    found, lonely = of_nearest(*nearest(rows, rows, 11), 0.999)
    assert {later for later, *_ in exact} == set(range(120)) - {0, 40, 80}
    assert {later for later, *_ in found} == {later for later, *_ in exact}
    assert all(earlier // 40 == later // 40 and earlier < later for later, earlier, _ in found)
    assert np.allclose(lonely, 1)


def test_without_the_extra_all_are_compared_and_that_is_said(
    kept: Embeddings, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index, "find_spec", lambda name: None)
    assert search(kept, photos / "ring" / "01.png", top=3)[0].found[0].name == "ring/twin of 01.png"
    assert "headstart[usearch]" in capsys.readouterr().err
    assert not list(Path(str(kept.file)).parent.glob("*.usearch"))


def test_a_query_for_which_the_graph_finds_too_few_is_compared_with_all() -> None:
    class Sparse:
        def search(self, queries: np.ndarray, count: int, threads: int) -> SimpleNamespace:
            return SimpleNamespace(keys=np.zeros((len(queries), 1)), counts=np.ones(len(queries), int))

    features = np.random.default_rng(0).normal(size=(30, 8)).astype(np.float32)
    found, exact = index._ranked(Sparse(), features, features, 5), nearest(features, features, 5)
    for part, wanted in zip(found, exact, strict=True):
        np.testing.assert_array_equal(part, wanted)
