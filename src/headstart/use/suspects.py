"""Labels that are probably wrong.

Comes in: representations and the labels people gave. Goes out: for every picture how likely its label is, judged by
pictures other than itself: the mean of a cross-validated linear probe and of its nearest neighbours, as the probes of
that name do it (docs/evaluation.md). The least likely come first (self-confidence in Northcutt et al. 2021).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from headstart.engine.randomness import numpy_generator
from headstart.evaluate import logistic
from headstart.evaluate.neighbours import NEIGHBOURS, TEMPERATURE, nearest

FOLDS = 5
STRENGTHS = (1e-4, 1e-3, 1e-2)
"""Values of C, the probe's inverse penalty, on standardised features; the best on the first fold is used for all."""
JUDGES = 50_000
"""Labelled pictures, drawn at random, that judge the others at most: time grows with the set, not with its square."""


@dataclass(frozen=True)
class Suspicion:
    """How every labelled picture's label looks, the most suspicious first.

    Attributes:
        order: positions, the most suspicious first.
        suggested: the class that probe and neighbours find likeliest, for each position.
        given: (n,) in [0, 1], the probability of the label it has; likeliest: of the suggested one.
    """

    order: np.ndarray
    suggested: np.ndarray
    given: np.ndarray
    likeliest: np.ndarray

    @property
    def doubtful(self) -> np.ndarray:
        """Positions where another class is likelier than the label, the most suspicious first."""
        return self.order[self.likeliest[self.order] > self.given[self.order]]


def suspicion(features: np.ndarray, labels: np.ndarray, classes: int) -> Suspicion | None:
    """Judge the labels of n pictures; None where there are too few (two classes, two pictures of each).

    features: (n, num_features); labels: (n,) in 0 ... classes - 1.
    """
    counts = np.bincount(labels, minlength=classes)
    if (counts >= 2).sum() < 2 or len(labels) < 2 * FOLDS:
        return None
    p = (probed(features, labels, classes) + voted(features, labels, classes)) / 2
    rows, suggested = np.arange(len(labels)), p.argmax(axis=1)
    given = p[rows, labels]
    return Suspicion(np.argsort(given, kind="stable"), suggested, given, p[rows, suggested])


def probed(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes): probabilities of a linear probe that was not trained on the picture it judges."""
    fold = numpy_generator(0, "suspects/folds").permutation(len(labels)) % FOLDS
    p = torch.empty(len(labels), classes)
    out = np.flatnonzero(fold == 0)
    judged, y = out[:JUDGES], torch.from_numpy(labels)
    strength = min(STRENGTHS, key=lambda C: _loss(_fold(features, y, classes, fold != 0, judged, C), y[judged]))
    for k in range(FOLDS):
        out = np.flatnonzero(fold == k)
        p[out] = _fold(features, y, classes, fold != k, out, strength)
    return p.numpy()


def _fold(features: np.ndarray, y: Tensor, classes: int, others: np.ndarray, out: np.ndarray, C: float) -> Tensor:
    """Probabilities of the rows `out` by a probe trained on the others (n,) bool, or on JUDGES of them."""
    rows = _judges(np.flatnonzero(others))
    x = torch.from_numpy(features[rows]).float()
    mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
    train = (x - mean) / std
    axes, mean_squares = logistic.principal_axes(train)
    weights, biases = logistic.lbfgs((train @ axes)[None], y[rows][None], classes, C, mean_squares=mean_squares)
    parts = (torch.from_numpy(features[some]).float() for some in np.split(out, range(JUDGES, len(out), JUDGES)))
    return torch.cat([((part - mean) / std @ axes @ weights[0] + biases[0]).softmax(1) for part in parts])


def _judges(rows: np.ndarray) -> np.ndarray:
    """All of these, or JUDGES of them, sorted."""
    return np.sort(numpy_generator(0, "suspects/judges").permutation(rows)[:JUDGES])


def _loss(p: Tensor, y: Tensor) -> float:
    return float(-p[torch.arange(len(y)), y].clamp(min=1e-12).log().mean())


def voted(features: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """(n, classes): what the NEIGHBOURS nearest others say, each with its weight."""
    judges = _judges(np.arange(len(labels)))
    indices, values = nearest(features, features[judges], NEIGHBOURS + 1)
    indices = judges[indices]
    left_out = indices == np.arange(len(labels))[:, None]  # the picture itself, or the furthest where it is no judge
    left_out[~left_out.any(axis=1), NEIGHBOURS:] = True
    weights = np.where(left_out, 0, np.exp((values - 1) / TEMPERATURE))
    p = np.zeros((len(labels), classes), np.float32)
    np.add.at(p, (np.arange(len(labels))[:, None], labels[indices]), weights)
    total = p.sum(axis=1, keepdims=True)
    return np.where(total > 0, p / np.where(total > 0, total, 1), 1 / classes)
