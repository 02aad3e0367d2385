"""Groups of alike pictures that nobody named.

Comes in: representations. Goes out: a group for every picture, or none where it lies alone, by HDBSCAN (Campello et
al. 2013) of their principal components; of large sets LANDMARKS are grouped, and the others join their nearest one.
"""

import numpy as np
from sklearn.cluster import HDBSCAN

from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import nearest, normalized

COMPONENTS = 16
"""In more dimensions all distances are alike and nothing is dense."""
LANDMARKS = 5000
SMALLEST = 5


def clusters(features: np.ndarray) -> np.ndarray:
    """The group of each row, int64 (n,), numbered by size from 0; -1 for rows that lie alone. Deterministic."""
    n = len(features)
    if n < 2 * SMALLEST:
        return np.full(n, -1)
    chosen = np.sort(numpy_generator(0, "clusters").permutation(n)[:LANDMARKS])
    landmarks = normalized(features[chosen])
    found = _grouped(landmarks)
    if len(chosen) < n:
        joined = found[nearest(features, landmarks, 1)[0][:, 0]]
        joined[chosen] = found
        found = joined
    return _by_size(found)


def _grouped(unit: np.ndarray) -> np.ndarray:
    centred = unit - unit.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    components = centred @ directions[:COMPONENTS].T
    smallest = max(SMALLEST, len(unit) // 200)
    return HDBSCAN(min_cluster_size=smallest, min_samples=SMALLEST, copy=True).fit_predict(components)


def _by_size(groups: np.ndarray) -> np.ndarray:
    names, counts = np.unique(groups[groups >= 0], return_counts=True)
    ranks = {name: rank for rank, name in enumerate(names[np.argsort(-counts, kind="stable")].tolist())}
    return np.array([ranks.get(int(group), -1) for group in groups], dtype=np.int64)
