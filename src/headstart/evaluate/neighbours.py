"""Exact cosine neighbours of representations, in blocks, so that memory does not grow with the square of the set."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

NEIGHBOURS, TEMPERATURE = 20, 0.1
"""The probe `knn`: so many nearest vote, each with weight exp(cosine / TEMPERATURE)."""
BLOCK_ENTRIES = 2**24
"""Similarities held at once: 64 MB."""
QUERIES, ROWS = 2**10, 2**14
"""Rows of queries and of the bank that are compared at once: together BLOCK_ENTRIES."""


def votes(similarity: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(Q, classes): for each query the weights of its neighbours (Q, k), added up by their labels (Q, k)."""
    return similarity.new_zeros(len(similarity), classes).scatter_add_(1, labels, (similarity / TEMPERATURE).exp())


def nearest(queries: np.ndarray, bank: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` most similar rows of `bank` (N, D) for each of `queries` (Q, D).

    Returns indices int64 and cosine similarities float32, both (Q, min(top, N)), the highest first, ties by index.
    """
    top = min(top, len(bank))
    indices = np.empty((len(queries), top), np.int64)
    values = np.empty((len(queries), top), np.float32)
    for start in range(0, len(queries), QUERIES):
        rows = slice(start, start + QUERIES)
        asked = torch.from_numpy(normalized(queries[rows]))
        found = np.empty((len(asked), 0), np.int64), np.empty((len(asked), 0), np.float32)
        for first in range(0, len(bank), ROWS):
            unit = torch.from_numpy(normalized(bank[first : first + ROWS]))
            found = _merged(found, (asked @ unit.T).numpy().clip(-1, 1), first, top)
        indices[rows], values[rows] = found
    return indices, values


def _merged(
    found: tuple[np.ndarray, np.ndarray], similarity: np.ndarray, first: int, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """The highest of what was found and of the similarities to the rows from `first` on; ties by index, because what
    was found stands first."""
    order = highest(similarity, top)
    indices = np.concatenate([found[0], first + order], axis=1)
    values = np.concatenate([found[1], np.take_along_axis(similarity, order, axis=1)], axis=1)
    best = highest(values, top)
    return np.take_along_axis(indices, best, axis=1), np.take_along_axis(values, best, axis=1)


def highest(similarity: np.ndarray, top: int) -> np.ndarray:
    """Positions (Q, top) of each row's highest entries, the highest first, ties by position: what a stable sort gives,
    without sorting the rest."""
    top = min(top, similarity.shape[1])
    if top == 0:
        return np.empty((len(similarity), 0), np.int64)
    values, found = (part.numpy() for part in torch.from_numpy(similarity).topk(top, dim=1))
    least = values[:, -1:]
    for row in np.flatnonzero((similarity >= least).sum(axis=1) > top):  # topk takes any of those that tie for the last
        found[row] = np.sort(found[row])
        above = found[row][similarity[row][found[row]] > least[row]]
        ties = np.flatnonzero(similarity[row] == least[row])[: top - len(above)]
        found[row] = np.concatenate([above, ties])
    found = np.sort(found, axis=1)
    order = np.argsort(-np.take_along_axis(similarity, found, axis=1), axis=1, kind="stable")
    return np.take_along_axis(found, order, axis=1)


def normalized(features: np.ndarray) -> np.ndarray:
    """Rows of length 1, float32; a row of zeros stays zero, similar to nothing."""
    unit = np.array(features, dtype=np.float32)
    for start in range(0, len(unit), ROWS):
        rows = unit[start : start + ROWS]
        length = np.linalg.norm(rows, axis=1, keepdims=True)
        rows /= np.where(length > 0, length, 1)
    return unit


def blocks(queries: np.ndarray, bank: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Similarities of unit rows, a block of queries at a time, so that memory does not grow with N squared."""
    size = max(1, BLOCK_ENTRIES // max(1, len(bank)))
    transposed = torch.from_numpy(bank).T
    for start in range(0, len(queries), size):
        rows = slice(start, start + size)
        yield rows, (torch.from_numpy(queries[rows]) @ transposed).numpy().clip(-1, 1)
