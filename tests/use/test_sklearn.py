"""The run as a transformer of scikit-learn's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator

import headstart
from headstart.records.errors import InputError
from headstart.sklearn import Embedder
from headstart.use.load import Run


def files_of(photos: Path) -> list[str]:
    return [str(path) for path in sorted(photos.rglob("*.png"))]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_own_run_of_its_checks_finds_nothing(run: Run) -> None:
    results = check_estimator(Embedder(str(run.folder.path), device="cpu"), on_skip=None)
    assert {found["status"] for found in results} <= {"passed", "skipped"}


@pytest.mark.parametrize(
    "check",
    [
        estimator_checks.check_estimator_cloneable,
        estimator_checks.check_estimator_repr,
        estimator_checks.check_get_params_invariance,
        estimator_checks.check_no_attributes_set_in_init,
        estimator_checks.check_set_params,
        estimator_checks.check_valid_tag_types,
    ],
)
def test_it_passes_the_checks_that_need_no_table_of_numbers(check: Callable[[str, Embedder], None], run: Run) -> None:
    """`check_estimator` skips them for what takes pictures; they hold all the same."""
    check("Embedder", Embedder(str(run.folder.path), device="cpu"))


def test_a_pipeline_learns_from_files_in_their_order(run: Run, photos: Path) -> None:
    files = files_of(photos)
    labels = [Path(file).parent.name for file in files]
    model = make_pipeline(Embedder(run.folder.path, device="cpu"), LogisticRegression(max_iter=2000))
    assert model.fit(files, labels).score(files, labels) > 0.5
    rows = model[0].transform(files)
    np.testing.assert_allclose(rows, run.embed(files), atol=1e-5)
    turned = model[0].transform(np.array(files[::-1]))
    np.testing.assert_allclose(turned[::-1], rows, atol=1e-5)
    np.testing.assert_allclose(model[0].transform(pd.Series(files)), rows, atol=1e-5)


def test_pictures_in_memory_are_taken_too(run: Run, photos: Path) -> None:
    files = files_of(photos)[:3]
    pictures = [Image.open(file).convert("RGB") for file in files]
    embedder = clone(Embedder(run, device="cpu")).fit()
    np.testing.assert_allclose(embedder.transform(pictures), embedder.transform(files), atol=1e-5)
    assert len(embedder.get_feature_names_out()) == embedder.transform(pictures).shape[1]


def test_what_is_no_run_and_no_picture_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run"):
        Embedder(tmp_path).fit()
    with pytest.raises(NotFittedError):
        Embedder(run).transform([])
    with pytest.raises(InputError):
        Embedder(run, device="cpu").fit().transform(np.zeros((4, 7)))


def test_no_pictures_are_not_the_runs_own(run: Run) -> None:
    nothing: Any
    for nothing in ([], (), np.array([], dtype=object), pd.Series([], dtype=object)):
        with pytest.raises(InputError, match="no pictures are given"):
            Embedder(run, device="cpu").fit().transform(nothing)
    with pytest.raises(InputError, match="NoneType cannot be embedded"):
        Embedder(run, device="cpu").fit().transform(None)
    with pytest.raises(InputError, match="batch_size is 0"):
        run.embed(np.zeros((2, 32, 32, 3), np.uint8), batch_size=0)
    with pytest.raises(InputError, match="NaN or infinite"):
        run.embed(np.full((2, 32, 32, 3), np.nan, np.float32))


@pytest.mark.parametrize(
    "pictures", [None, 3, np.zeros((8, 8, 8, 3), np.uint8), [np.zeros((8, 8, 3), np.uint8)], {"a"}]
)
def test_pretrain_takes_names_of_pictures(pictures: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be DATA"):
        headstart.pretrain(pictures, out=tmp_path / "r")
    with pytest.raises(InputError, match="out is ''; give the run folder"):
        headstart.pretrain("photos", out="")
