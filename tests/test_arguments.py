"""What somebody's own script may give the Python API in error: text, None, lists where one number is wanted, and the
like. Each is one sentence that names what it was, and no error from the depths of torch, NumPy or Python."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import headstart
from headstart import heads, statistics
from headstart.augment import SimCLRAugment
from headstart.evaluate import foreign
from headstart.heads import AttentionHead, ProjectionHead
from headstart.ntxent import nt_xent
from headstart.objectives import barlow, sigreg, vicreg
from headstart.records.errors import InputError

made: Any = ProjectionHead
started: Any = ProjectionHead.from_init
attention: Any = AttentionHead
augment: Any = SimCLRAugment
stats: Any = statistics
z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
pictures = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
eight: Any = SimCLRAugment(8)

HEADS: list[tuple[Any, str]] = [
    (lambda: made(8, depth="2"), "depth is '2'; it must be from 1 to 4, and whole"),
    (lambda: made(8, depth=2.5), "depth is 2.5"),
    (lambda: made(8, depth=None), "depth is None"),
    (lambda: made(8, batch_norm="no"), "batch_norm is 'no'; it must be True or False"),
    (lambda: made(8, activation=["relu"]), r"activation is \['relu'\]"),
    (lambda: made(8, generator=3), "generator is 3; it has to be a torch.Generator"),
    (lambda: started(8, init="random", frozen="no"), "frozen is 'no'; it must be True or False"),
    (lambda: started(8, init="random", match_scale=1), "match_scale is 1"),
    (lambda: started(8, init="random", pretrained="some"), "pretrained is 'some'; it must be first or all"),
    (lambda: started(8, init=["pca"]), r"init is \['pca'\]"),
    (lambda: started(8, init="autoencoder", autoencoder=3), "the autoencoder is of type int"),
    (lambda: made.from_autoencoder(None), "the autoencoder is of type NoneType"),
    (lambda: made.from_autoencoder({"encoder.embedding.weight": 3}), "is of type int, not a tensor"),
    (lambda: attention(8, tokens="2"), "tokens is '2'"),
    (lambda: attention(8, tokens=2.0), "tokens is 2.0"),
    (lambda: attention(8, blocks="1"), "blocks is '1'; it must be from 1 to 2"),
    (lambda: attention("8"), "in_features is '8'"),
    (lambda: attention(8)(torch.zeros(8)), r"h has the shape \(8,\); this head needs \(N, 8\)"),
    (lambda: made(8, batch_norm=True)(torch.zeros(8)), r"this head needs \(N, 8\)"),
    (lambda: heads.of_kind(8, 3), "settings are of type int"),  # type: ignore[arg-type]
    (lambda: heads.register("mine", 4), "build is of type int"),  # type: ignore[arg-type]
    (lambda: heads.register(3, made), "head.kind 3 cannot be registered"),  # type: ignore[arg-type]
]

LOSSES: list[tuple[Any, str]] = [
    (lambda: nt_xent(z, "0.5"), "temperature is '0.5'; it has to be a finite number"),  # type: ignore[arg-type]
    (lambda: nt_xent(z, True), "temperature is True"),
    (lambda: vicreg(z, invariance="x"), "invariance is 'x'; it has to be a finite number"),  # type: ignore[arg-type]
    (lambda: vicreg(z, variance=None), "variance is None"),  # type: ignore[arg-type]
    (lambda: vicreg(z, covariance=[1]), r"covariance is \[1\]"),  # type: ignore[arg-type]
    (lambda: vicreg(z, covariance=float("nan")), "covariance is nan"),
    (lambda: barlow(z, off_diagonal="x"), "off_diagonal is 'x'"),  # type: ignore[arg-type]
    (lambda: barlow(z, epsilon=-1), "epsilon is -1; it has to be a number of at least 0"),
    (lambda: barlow(z, epsilon="x"), "epsilon is 'x'"),  # type: ignore[arg-type]
    (lambda: sigreg(z, weight="x"), "weight is 'x'"),  # type: ignore[arg-type]
    (lambda: sigreg(z, weight=1.5), "weight is 1.5; it has to be a number from 0 to 1"),
    (lambda: sigreg(z, directions="x"), "directions is 'x'"),  # type: ignore[arg-type]
    (lambda: sigreg(z, directions=0), "directions is 0; it must be at least 1"),
    (lambda: sigreg(z, directions=torch.randn(3, 5)), r"directions have the shape \(3, 5\); they have to be \(4, M\)"),
    (lambda: sigreg(z, generator=3), "generator is 3"),  # type: ignore[arg-type]
]

AUGMENT: list[tuple[Any, str]] = [
    (lambda: augment(mean="abc"), "mean is 'abc'; it has to be three numbers"),
    (lambda: augment(mean=["a", "b", "c"], std=[1, 1, 1]), "mean is"),
    (lambda: augment(mean=[[1, 2], [3]], std=[1, 1, 1]), "mean is"),
    (lambda: augment(crop_scale="a"), "crop_scale is 'a'; it has to be 2 finite numbers"),
    (lambda: augment(crop_scale="ab"), "crop_scale is 'ab'"),
    (lambda: augment(crop_scale=torch.ones(2, 2)), "crop_scale is"),
    (lambda: augment(crop_ratio=(1, float("inf"))), "2 finite numbers"),
    (lambda: augment(jitter=(1, 1, 1, "x")), "4 finite numbers"),
    (lambda: augment(flip=[0.5]), "flip is"),
    (lambda: augment(blur_kernel="3"), "blur_kernel is '3'"),
    (lambda: augment(blur_kernel=[3]), "blur_kernel is"),
    (lambda: eight(pictures, valid="x"), "valid is of type str"),
    (lambda: eight(pictures, valid=[["a", "b"]] * 4), "valid is of type list"),
    (lambda: eight(pictures, valid=torch.full((4, 2), 1.5)), "whole and within its frame"),
    (lambda: eight(pictures, generator=3), "generator is 3"),
    (lambda: eight.draw("x", 3, 3), "n is 'x'"),
    (lambda: eight.draw(-1, 3, 3), "n is -1"),
    (lambda: eight.draw(2, "x", 3), "height is 'x'; it has to be pixels"),
    (lambda: eight.draw(2, 3, 0), "width is 0"),
    (lambda: eight.draw(2, torch.tensor([3, 3, 3]), 3), "height is"),
    (lambda: eight.plan("x"), "params are of type str"),
    (lambda: eight.apply(pictures, None), "params are of type NoneType"),
    (lambda: eight.apply(pictures, eight.draw(8, 99, 99)), "leave pictures of 16 x 16 pixels"),
]

STATISTICS: list[tuple[Any, str]] = [
    (lambda: stats.wilson("a", 3), "correct is 'a'; it must be a finite number"),
    (lambda: stats.wilson(1, None), "n is None"),
    (lambda: stats.wilson(1, 3, level=95), "level is 95; it must be between 0 and 1"),
    (lambda: stats.t_interval("abc"), "values: 'abc' is not a list of numbers"),
    (lambda: stats.t_interval(["a", "b"]), "is not a list of numbers"),
    (lambda: stats.t_interval([[1, 2], [3, 4]]), "is not a list of numbers"),
    (lambda: stats.t_interval([1, 2], level="x"), "level is 'x'"),
    (lambda: stats.bootstrap_interval([1, 2, 3], statistic="mode"), "statistic is 'mode'"),
    (lambda: stats.bootstrap_interval([1, 2, 3], draws=0), "draws is 0"),
    (lambda: stats.bootstrap_interval([1, 2, 3], generator=3), "generator 3"),
    (lambda: stats.wilcoxon(3), "differences: 3 is not a list"),
    (lambda: stats.holm(0.05), "p_values: 0.05 is not a list"),
    (lambda: stats.holm([2, 3]), "not all from 0 to 1"),
    (lambda: stats.clustered([1, 2, 3], ["a", "b"]), "a label for each"),
    (lambda: stats.clustered([1, 2, 3]), "one or two kinds of labels"),
    (lambda: stats.clustered([], []), "at least one difference"),
    (lambda: stats.clustered(None, ["a"]), "differences: None"),
    (lambda: stats.friedman([[1, 2, 3], [1, 2]]), "as many in every row"),
    (lambda: stats.iman_davenport("x"), "values: 'x'"),
    (lambda: stats.critical_difference(4, 0), "blocks is 0"),
    (lambda: stats.rank_p_values([1], "x", 4), "treatments is 'x'"),
    (lambda: stats.clusters_needed("a", 1), r"mean and spread are \('a', 1\)"),
    (lambda: stats.clusters_needed(1, 1, power=2), "power is 2"),
    (lambda: stats.clusters_for_half_width(1, "a"), "spread is 'a'"),
    (lambda: stats.clusters_for_half_width(1, 1, most="x"), "most is 'x'"),
]

runs: Any = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
top: Any = headstart

WHOLE: list[tuple[Any, str]] = [
    (lambda: top.pretrain("digits", None), "out is None; give the run folder"),
    (lambda: top.pretrain("digits", 3), "out is 3"),
    (lambda: top.pretrain({"digits": 1}, "r"), "the pictures are of type dict"),
    (lambda: top.load(3), "a path is of type int"),
    (lambda: top.load(None), "a path is of type NoneType"),
    (lambda: top.load("x" * 5000), "is not a run folder: File name too long"),
    (lambda: top.compare("runs.csv", metric="a", by="b"), "the runs are of type str"),
    (lambda: top.compare(runs, metric=3, by="b"), "metric is 3; it must be a column's name or several"),
    (lambda: top.compare(runs, metric="a", by=3), "by is 3; it must be a column's name$"),
    (lambda: top.compare(runs, metric="a", by="b", pair=[1]), r"pair is \[1\]"),
]


@pytest.mark.parametrize(("call", "words"), [*HEADS, *LOSSES, *AUGMENT, *STATISTICS, *WHOLE])
def test_what_is_none_of_its_kind_is_one_sentence(call: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_numbers_of_any_library_stay_numbers() -> None:
    assert is_close(vicreg(z, np.float64(2), torch.tensor(25.0)), vicreg(z, 2.0))  # type: ignore[arg-type]
    many: Any = np.int64(16)
    first, second = (torch.Generator().manual_seed(0) for _ in range(2))
    assert is_close(sigreg(z, directions=many, generator=first), sigreg(z, directions=16, generator=second))
    assert statistics.wilson(np.int64(8), np.int64(10)) == statistics.wilson(8, 10)  # type: ignore[arg-type]
    assert augment(mean=np.array([0.1, 0.2, 0.3]), std=np.array([0.5, 0.5, 0.5])).mean.tolist() == pytest.approx(
        [0.1, 0.2, 0.3]
    )


def is_close(one: torch.Tensor, two: torch.Tensor) -> bool:
    return bool(torch.isclose(one, two, rtol=1e-6))


def several(names: list[str]) -> Iterator[str]:
    yield from names


def test_pretrain_takes_what_a_generator_yields(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"named set .*nowhere-1"):
        headstart.pretrain(several([str(tmp_path / "nowhere-1"), str(tmp_path / "nowhere-2")]), out=tmp_path / "run")
    with pytest.raises(InputError, match="no DATA given"):
        headstart.pretrain(several([]), out=tmp_path / "run")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "\n", 3])
def test_evaluate_run_takes_no_name_that_is_none_of_a_file(name: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a file name"):
        foreign.evaluate_run(tmp_path, name=name)
