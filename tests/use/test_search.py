"""Search and selection against their plain definitions."""

import csv
import io
import itertools
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from headstart.engine.device import choose
from headstart.evaluate import neighbours
from headstart.evaluate.neighbours import highest, nearest, normalized
from headstart.records.errors import InputError
from headstart.records.text import table
from headstart.use.copies import copy, suggested
from headstart.use.embed import embed
from headstart.use.embeddings import Embeddings, of_images, read
from headstart.use.load import Run
from headstart.use.search import search
from headstart.use.select import compare, farthest, select

points = st.builds(
    lambda seed, n, d: np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32),
    st.integers(0, 2**16),
    st.integers(2, 40),
    st.integers(2, 8),
)


@settings(max_examples=30, deadline=None)
@given(points, points, st.integers(1, 12))
def test_nearest_is_the_sorted_cosine(queries: np.ndarray, bank: np.ndarray, top: int) -> None:
    bank = bank[:, : min(queries.shape[1], bank.shape[1])]
    queries = queries[:, : bank.shape[1]]
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(bank, axis=1)[None]
    plain = (queries.astype(np.float64) @ bank.T.astype(np.float64)) / lengths
    indices, values = nearest(queries, bank, top)
    assert indices.shape == (len(queries), min(top, len(bank)))
    np.testing.assert_allclose(values, -np.sort(-plain, axis=1)[:, :top], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(plain, indices, axis=1), values, atol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 12))
def test_ties_go_to_the_lower_index_in_whatever_blocks(seed: int, top: int) -> None:
    draws = np.random.default_rng(seed)
    queries, bank = (np.eye(3, dtype=np.float32)[draws.integers(0, 3, n)] for n in (7, 23))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "QUERIES", 3)
        patch.setattr(neighbours, "ROWS", 4)
        indices, values = nearest(queries, bank, top)
    expected = np.argsort(-(queries @ bank.T), axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(queries @ bank.T, expected, axis=1))


@settings(max_examples=30, deadline=None)
@given(points, st.floats(0.2, 0.99))
def test_pairs_and_loneliness_against_the_whole_matrix(features: np.ndarray, threshold: float) -> None:
    unit = normalized(features)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK_ENTRIES", 3 * len(unit))  # three rows a block
        pairs, loneliness = compare(unit, threshold)
    whole = unit.astype(np.float64) @ unit.T.astype(np.float64)
    found = {i: (j, value) for i, j, value in pairs}
    for i in range(len(unit)):
        before = whole[i, :i]
        if i and before.max() >= threshold + 1e-5:
            assert before[found[i][0]] == pytest.approx(before.max(), abs=1e-5)
        elif not i or before.max() < threshold - 1e-5:
            assert i not in found
        others = np.sort(np.delete(whole[i], i))[::-1][:10]
        assert loneliness[i] == pytest.approx(others.mean(), abs=1e-5)
    assert [v for *_, v in pairs] == sorted((v for *_, v in pairs), reverse=True)


@settings(max_examples=30, deadline=None)
@given(points, st.data())
def test_each_choice_is_the_farthest_from_all_before(features: np.ndarray, data: st.DataObject) -> None:
    unit = normalized(features)
    n = data.draw(st.integers(1, len(unit)))
    chosen, least = farthest(unit, n, np.array([], dtype=int))
    assert len(set(chosen)) == n
    others = np.setdiff1d(np.arange(len(unit)), chosen)
    assert least == pytest.approx((unit @ unit[chosen].T).max(axis=1)[others].min(initial=1), abs=1e-5)
    for k in range(1, n):
        closest = (unit @ unit[chosen[:k]].T).max(axis=1)
        rest = np.setdiff1d(np.arange(len(unit)), chosen[:k])
        assert closest[chosen[k]] <= closest[rest].min() + 1e-6


def test_labelled_pictures_count_as_covered() -> None:
    clusters = normalized(np.array([[1, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 1, 0.1], [0, 0, 1]], dtype=np.float32))
    assert farthest(clusters, 1, np.array([0, 4]))[0] in ([2], [3])
    assert set(farthest(clusters, 3, np.array([0, 4]))[0]) == {1, 2, 3}


@settings(max_examples=30, deadline=None)
@given(points, st.integers(1, 3), st.integers(0, 2))
def test_no_other_choice_leaves_less_than_half_the_distance(features: np.ndarray, n: int, labelled: int) -> None:
    unit = normalized(features[:9])
    n = min(n, len(unit) - labelled)
    assume(n >= 1)
    covered = np.arange(labelled)

    def left(chosen: Sequence[int]) -> float:
        apart = np.linalg.norm(unit[:, None] - unit[[*covered, *chosen]][None], axis=2)
        return float(apart.min(axis=1).max())

    _, least = farthest(unit, n, covered)
    best = min(left(chosen) for chosen in itertools.combinations(range(labelled, len(unit)), n))
    assert best >= max(0, 2 - 2 * least) ** 0.5 / 2 - 1e-3


def test_of_many_labelled_pictures_some_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = normalized(np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32))
    monkeypatch.setattr("headstart.use.select.COVERED", 10)
    monkeypatch.setattr("headstart.use.select.BLOCK", 7)
    chosen, _ = farthest(unit, 20, np.arange(40))
    assert set(chosen) == set(range(40, 60))
    monkeypatch.setattr("headstart.use.select.COVERED", 40)
    assert farthest(unit, 1, np.arange(40))[0] == [40 + int((unit[40:] @ unit[:40].T).max(axis=1).argmin())]


def test_a_similarity_is_suggested_by_copies_of_the_set_s_own_pictures(within: Embeddings, photos: Path) -> None:
    found = suggested(within)
    assert found is not None
    assert found.copies == len(within)
    own = np.stack([within.run.embed([copy(within.picture(i))], compute=within.compute)[0] for i in range(60)])
    reached = (normalized(own) * normalized(within.features)).sum(axis=1)
    assert (reached >= found.similarity - 1e-2).mean() >= 0.95  # bfloat16, one at a time
    assert (np.sort(reached)[:3] < found.similarity + 1e-2).all()
    twins = nearest(within.features, within.features, 2)[1][:, 1]
    assert found.others == pytest.approx((twins >= found.similarity).mean(), abs=0.05)
    asked = select(within, 2, similarity="auto")
    assert asked.suggested == found
    assert asked.duplicates == select(within, 2, similarity=found.similarity).duplicates


def test_what_is_suggested_is_kept_beside_a_file_while_its_rows_are_the_same(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, out = Path(shutil.copytree(photos / "ring", tmp_path / "mine")), tmp_path / "all.npz"
    embed(run, mine, out, quiet=True)
    copied: list[np.ndarray] = []

    def watched(pixels: np.ndarray) -> Image.Image:
        copied.append(pixels)
        return copy(pixels)

    monkeypatch.setattr("headstart.use.copies.copy", watched)
    first = suggested(read(out))
    count = len(copied)
    assert suggested(read(out)) == first
    assert len(copied) == count > 0
    (tmp_path / "all.npz.copies.json").write_text('{"of": 1}')  # damaged
    assert suggested(read(out)) == first
    next(mine.iterdir()).unlink()
    embed(run, mine, out, quiet=True)
    again = suggested(read(out))
    assert again is not None
    assert again.copies == count - 1 == len(copied) - 2 * count


def test_without_the_pictures_none_is_suggested(
    run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copytree(photos / "ring", tmp_path / "mine"))
    embed(run, mine, tmp_path / "all.npz", quiet=True)
    shutil.move(mine, tmp_path / "elsewhere")
    Image.new("RGB", (9, 9)).save(mine.with_name("mine.png"))
    mine.mkdir()
    shutil.move(mine.with_name("mine.png"), mine / "other.png")
    kept = read(tmp_path / "all.npz")
    found = select(kept, 2, out=tmp_path / "lists")
    assert found.suggested is None
    said = capsys.readouterr().err
    assert "no similarity is suggested" in said
    assert said.count("no contact sheet of duplicates, outliers, label-next") == 1
    assert {path.name for path in (tmp_path / "lists").iterdir()} == {
        *(f"{name}.csv" for name in ("duplicates", "outliers", "label-next", "clusters")),
    }
    with pytest.raises(InputError, match="auto needs the pictures"):
        select(kept, 2, similarity="auto")


@pytest.fixture(scope="module")
def within(run: Run, photos: Path) -> Embeddings:
    return of_images(run, run.open_images(photos))


def test_a_picture_finds_its_twin_and_not_itself(within: Embeddings, photos: Path, tmp_path: Path) -> None:
    query = photos / "ring" / "01.png"
    (answer,) = search(within, query, top=5, out=tmp_path / "sheet.png")
    found = [(match.name, match.similarity) for match in answer.found]
    assert found[0][0] == "ring/twin of 01.png"
    assert found[0][1] == pytest.approx(1, abs=1e-5)
    assert len(found) == 5
    assert "ring/01.png" not in [name for name, _ in found]
    assert [v for _, v in found] == sorted((v for _, v in found), reverse=True)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"


@pytest.mark.parametrize(("ending", "format"), [("jpg", "JPEG"), ("JPEG", "JPEG"), ("png", "PNG")])
def test_a_sheet_is_what_its_name_says(
    within: Embeddings, photos: Path, tmp_path: Path, ending: str, format: str
) -> None:
    sheet = tmp_path / f"sheet.{ending}"
    search(within, photos / "ring" / "01.png", top=2, out=sheet)
    with Image.open(sheet) as picture:
        assert picture.format == format
    with pytest.raises(InputError, match=r"sheet\.gif must end in \.png"):
        search(within, photos / "ring" / "01.png", out=tmp_path / "sheet.gif")


@pytest.mark.parametrize("given", ["pictures", "list"])
def test_a_picture_of_a_list_finds_its_twin_and_not_itself(run: Run, photos: Path, tmp_path: Path, given: str) -> None:
    paths = sorted(photos.rglob("*.png"))[:12]
    twin = shutil.copy(paths[0], tmp_path / "twin.png")
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in [*paths, twin]))
    sources = [*paths, twin] if given == "pictures" else [tmp_path / "list.txt"]
    listed = of_images(run, run.open_images(sources), choose("cpu", "float32", threads=1))
    (answer,) = search(listed, paths[0], top=3)
    assert answer.found[0].similarity > 0.999
    assert "twin" in answer.found[0].name
    assert len(answer.found) == 3
    assert not any(match.name.endswith(paths[0].name) for match in answer.found)


def test_a_query_is_embedded_in_the_precision_of_the_rows(run: Run, photos: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        compute = choose("cpu", precision, threads=1)
        embed(run, photos, tmp_path / f"{precision}.npz", compute=compute)
        other = choose("cpu", "bfloat16" if precision == "float32" else "float32", threads=1)
        assert read(tmp_path / f"{precision}.npz", other).compute.precision == precision


def test_a_foreign_query_finds_its_copy(within: Embeddings, photos: Path, tmp_path: Path) -> None:
    query = tmp_path / "-copy.png"
    query.write_bytes((photos / "=disc" / "03.png").read_bytes())
    assert search(within, query, top=1)[0].found[0].name == "=disc/03.png"


def test_every_picture_of_a_folder_is_a_query(within: Embeddings, photos: Path, tmp_path: Path) -> None:
    found = search(within, photos / "ring", top=3, out=tmp_path / "sheet.png")
    assert [one.query for one in found] == sorted(path.name for path in (photos / "ring").iterdir())
    for one in found:
        assert len(one.found) == 3
        assert f"ring/{one.query}" not in [match.name for match in one.found]
    (alone,) = search(within, photos / "ring" / found[4].query, top=3)
    assert [match.name for match in alone.found] == [match.name for match in found[4].found]


@settings(max_examples=50, deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 12)), elements=st.sampled_from([0, 0.25, 0.5])),
    st.integers(1, 14),
)
def test_the_highest_are_those_of_a_stable_sort(similarity: np.ndarray, top: int) -> None:
    wanted = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(highest(similarity, top), wanted)


def test_a_missing_query_is_named(within: Embeddings, photos: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.png"):
        search(within, "nowhere.png")
    with pytest.raises(InputError, match="--top is 0"):
        search(within, photos / "ring" / "01.png", top=0)


def test_that_all_pairs_are_compared_is_said_before_it_takes_long(
    within: Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("headstart.use.select.say", said.append)
    select(within, 2)
    assert said == []
    monkeypatch.setattr("headstart.use.select.MANY", len(within) - 1)
    select(within, 2)
    assert said == [
        f"each of {len(within)} pictures is compared with every other: twice as many take four times as long"
    ]


def test_selection_as_lists_and_sheets(within: Embeddings, photos: Path, tmp_path: Path) -> None:
    found = select(within, 6, out=tmp_path)
    assert ("ring/twin of 01.png", "ring/01.png") in [pair[:2] for pair in found.duplicates]
    assert len(found.outliers) == len(found.label_next) == len(set(found.label_next)) == 6
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        f"{name}.{kind}"
        for name in ("duplicates", "outliers", "label-next", "clusters")
        for kind in ("csv", "png")
        if (name, kind) != ("clusters", "png") or any(group for _, group in found.clusters)
    )
    headers = {
        "duplicates": ["name", "earlier", "similarity"],
        "outliers": ["name", "similarity"],
        "label-next": ["name"],
        "clusters": ["name", "cluster"],
    }
    for name, header in headers.items():
        rows = list(csv.reader(io.StringIO((tmp_path / f"{name}.csv").read_text())))
        assert rows[0] == header
        assert not any(cell.startswith("=") for row in rows for cell in row)  # a folder is called =disc
    assert select(within, 6) == found


def test_a_wrong_label_is_named_with_a_better_one(run: Run, photos: Path, tmp_path: Path) -> None:
    labels = {name: name.split("/")[0] for name in run.open_images(photos).names}
    labels["ring/twin of 01.png"] = "=disc"
    (tmp_path / "labels.csv").write_text(table(("name", "label"), list(labels.items())))
    data = replace(run.reading, labels=str(tmp_path / "labels.csv"))
    found = select(of_images(run, run.open_images(photos, data)), 3, out=tmp_path / "chosen")
    error = next(error for error in found.label_errors if error.name == "ring/twin of 01.png")
    assert (error.label, error.suggested) == ("=disc", "ring")
    assert error.label_probability < error.suggested_probability
    header, first, *_ = csv.reader(io.StringIO((tmp_path / "chosen" / "label-errors.csv").read_text()))
    assert header == ["name", "label", "suggested", "label_probability", "suggested_probability"]
    assert first[1].startswith(("'=", "ring", "bar"))
    assert (tmp_path / "chosen" / "label-errors.png").exists()


def test_selection_chooses_among_the_unlabelled(run: Run, photos: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("name,label\n" + "".join(f"=disc/{i:02d}.png,disc\n" for i in range(20)))
    images = run.open_images(photos, replace(run.reading, labels=str(labels)))
    assert not any(name.startswith("=disc") for name in select(of_images(run, images), 10).label_next)


@pytest.mark.parametrize("n", [0, 61])
def test_a_number_out_of_range_is_refused(within: Embeddings, photos: Path, n: int) -> None:
    with pytest.raises(InputError, match=f"-n is {n}"):
        select(within, n)
