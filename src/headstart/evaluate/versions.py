"""Which of two versions of a backbone represents a set better, from its labels but without its test split.

Comes in: features of the labelled pictures of train and val, of each version. Goes out: for every picture whether three
judges are right about it, and from that a paired difference with its standard error. A validation split of a few dozen
pictures cannot tell versions apart; all labels but the test split's, cross-validated, can.

The judges are the probes `knn`, `linear` and `few_shot_5`, each asked about pictures that it was not fitted on:
nearest neighbours but the picture itself; a linear classifier in five folds; five labels a class, eight draws.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.engine.randomness import order
from headstart.evaluate import logistic
from headstart.evaluate.neighbours import NEIGHBOURS, votes
from headstart.evaluate.probes import DRAWS, FEW_SHOT_C, FEW_SHOT_LENGTH

LARGEST = 4000
"""Pictures that are judged; of more, so many are drawn."""
FOLDS = 5
SHOTS = 5
C_GRID = (1e-3, 1e-2, 1e-1)
CLEAR = 2.0
"""Standard errors by which a version has to be ahead."""


@dataclass(frozen=True)
class Verdict:
    """What the judges say of one version.

    Attributes:
        right: judge -> share of times it was right about each picture (n,), NaN where it was not asked.
    """

    right: dict[str, np.ndarray]

    @property
    def accuracy(self) -> dict[str, float]:
        """Judge -> share of pictures it is right about."""
        return {name: float(np.nanmean(values)) for name, values in self.right.items()}

    def ahead_of(self, other: "Verdict") -> tuple[float, float]:
        """How much more often the judges are right on average, and the standard error of that over pictures."""
        differences = np.stack([self.right[name] - other.right[name] for name in self.right])
        each = np.nanmean(differences, axis=0)
        return float(each.mean()), float(each.std(ddof=1) / math.sqrt(len(each)))


def chosen(verdicts: Sequence[Verdict]) -> int:
    """The version to keep: the best of them where it is clearly ahead of the first, which is the given one; else 0."""
    leads = [verdict.ahead_of(verdicts[0]) for verdict in verdicts]
    best = max(range(len(leads)), key=lambda i: leads[i][0])
    lead, error = leads[best]
    return best if lead > CLEAR * error else 0


def judged(labels: np.ndarray, split_seed: int) -> np.ndarray:
    """Positions of the pictures that the judges are asked about: those with labels, of more than `LARGEST` a draw, of
    classes with at least two; none where fewer than two classes are left."""
    rows = np.flatnonzero(labels >= 0)
    rows = rows[order(split_seed, "versions", 0, len(rows)).numpy()[:LARGEST]]
    counts = np.bincount(labels[rows], minlength=1)
    rows = np.sort(rows[counts[labels[rows]] >= 2])
    return rows if len(np.unique(labels[rows])) >= 2 else rows[:0]


def judge(features: np.ndarray, labels: np.ndarray, split_seed: int) -> Verdict:
    """Ask the three judges about every picture.

    Args:
        features: (n, F) float32.
        labels: (n,) of at least two classes with two pictures each.
        split_seed: what the folds and draws follow from: the same for every version.
    """
    x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    y = torch.from_numpy(labels).unique(return_inverse=True)[1]
    unit = F.normalize(x, dim=1)
    right = {"knn": _neighbours(unit, y), "linear": _folds(x, y, split_seed), "few_shot_5": _few(unit, y, split_seed)}
    return Verdict({name: values.numpy() for name, values in right.items()})


def _neighbours(unit: Tensor, y: Tensor) -> Tensor:
    """Weighted vote of the nearest others, as the probe `knn` takes it."""
    similarity = (unit @ unit.T).fill_diagonal_(-math.inf)
    values, nearest = similarity.topk(min(NEIGHBOURS, len(unit) - 1), dim=1)
    return (votes(values, y[nearest], int(y.max()) + 1).argmax(dim=1) == y).double()


def _folds(x: Tensor, y: Tensor, split_seed: int) -> Tensor:
    """Standardised logistic regression on four fifths, asked about the rest; the C that is right most often."""
    classes = int(y.max()) + 1
    x = (x - x.mean(dim=0)) / x.std(dim=0).clamp_min(1e-6)
    axes, mean_squares = logistic.principal_axes(x.double())
    x = (x.double() @ axes).float()
    shuffled = order(split_seed, "versions/folds", 0, len(y))
    by_class = shuffled[y[shuffled].argsort(stable=True)]  # neighbours in it are of one class and go to different folds
    fold = torch.empty(len(y), dtype=torch.long)
    fold[by_class] = torch.arange(len(y)) % FOLDS
    right = torch.zeros(len(C_GRID), len(y), dtype=torch.double)
    for k in range(FOLDS):
        seen, asked, start = fold != k, fold == k, None
        for i, C in enumerate(C_GRID):
            start = logistic.lbfgs(x[seen][None], y[seen][None], classes, C, start, mean_squares.float(), max_iter=60)
            right[i, asked] = ((x[asked] @ start[0][0] + start[1][0]).argmax(dim=1) == y[asked]).double()
    return right[int(right.sum(dim=1).argmax())]


def _few(unit: Tensor, y: Tensor, split_seed: int) -> Tensor:
    """Logistic regression on a few pictures a class, asked about all others; the share of draws it is right in."""
    x, counts = FEW_SHOT_LENGTH * unit, torch.bincount(y)
    right, asked = torch.zeros(len(y), dtype=torch.double), torch.zeros(len(y), dtype=torch.double)
    for draw in range(DRAWS):
        shuffled = order(split_seed, "versions/few", draw, len(y))
        by_class = shuffled[y[shuffled].argsort(stable=True)].split(counts.tolist())
        seen = torch.cat([part[: min(SHOTS, len(part) - 1)] for part in by_class])
        weights, biases = logistic.lbfgs(x[seen][None], y[seen][None], len(counts), FEW_SHOT_C, max_iter=60)
        rest = torch.ones(len(y), dtype=torch.bool)
        rest[seen] = False
        right[rest] += ((x[rest] @ weights[0] + biases[0]).argmax(dim=1) == y[rest]).double()
        asked += rest
    return right / asked  # NaN for a picture that every draw was fitted on
