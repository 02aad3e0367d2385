"""Nearest pictures among millions: an index that is built once beside the embeddings and kept (extra `usearch`).

Comes in: queries and embeddings. Goes out: as `neighbours.nearest`. Up to APPROXIMATE_FROM pictures (where each of them
is a query, up to ALL_PAIRS), and without the extra, every picture is compared. Beyond, candidates come from a graph
(HNSW, Malkov and Yashunin 2018) and are ranked by their exact similarity; how many of the exact answers it finds is
measured when it is built, and said.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.engine.progress import say, stage
from headstart.engine.randomness import numpy_generator
from headstart.evaluate.neighbours import nearest, normalized
from headstart.records import files
from headstart.records.claim import alone
from headstart.statistics import wilson
from headstart.use.embeddings import Embeddings

APPROXIMATE_FROM = 1_000_000
"""Rows up to which all are compared: a query of a million takes a third of a second."""
ALL_PAIRS = 100_000
"""Rows up to which each is compared with all others: at ten times as many that takes a hundred times as long."""
CANDIDATES = 4
"""Times as many as are asked for are taken from the graph and ranked exactly."""
ASKED, TOP = 200, 10
"""Recall: of the TOP exact neighbours of so many pictures of the set, the share that the index finds."""
BLOCK, ASKED_AT_ONCE = 10_000, 256


@dataclass(frozen=True)
class Recall:
    """Of so many exact neighbours, how many the index finds; identity: of the rows it was built of."""

    identity: str
    found: int
    asked: int

    def __str__(self) -> str:
        low, high = wilson(self.found, self.asked)
        return f"{self.found / self.asked:.3f} (95 % interval {low:.3f} to {high:.3f})"


def close(queries: np.ndarray, within: Embeddings, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices and cosine similarities of the `top` rows of `within` most like each query, the highest first."""
    if len(within) <= APPROXIMATE_FROM or within.file is None or not _usearch(within):
        return nearest(queries, within.features, top)
    assert within.kept is not None  # of a few queries the rows in question are read, and not all are checked
    return _ranked(_opened(within), queries, within.kept, top)


def every(within: Embeddings, top: int) -> tuple[np.ndarray, np.ndarray] | None:
    """As `close` of every row of `within`, which is itself among its answers, from an index; None where there are so
    few that all pairs are compared, or no index can be had."""
    if len(within) <= ALL_PAIRS or not _usearch(within):
        return None
    return _ranked(_opened(within), within.features, within.features, top)


def _usearch(within: Embeddings) -> bool:
    """Whether an index can be built; that it cannot is said."""
    there = find_spec("usearch") is not None
    if not there:
        say(f"all {len(within):,} pictures are compared; `pip install 'headstart[usearch]'` builds an index of them")
    return there


def _opened(within: Embeddings) -> Any:
    """The index of these pictures; what it finds is said."""
    index, recall = _index(within, within.file) if within.file else _measured(within, "")
    kept = f"; {_beside(within.file).name} keeps it" if within.file else ""
    say(f"from an index of {len(within):,} pictures, recall at {TOP} {recall}{kept}")
    return index


def _ranked(index: Any, queries: np.ndarray, features: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """The best of the index's candidates, by their exact similarity; ties by index. All rows are compared with a query
    for which the graph finds fewer than `top`."""
    top = min(top, len(features))
    count = min(len(features), CANDIDATES * top)
    indices, values = np.empty((len(queries), top), np.int64), np.empty((len(queries), top), np.float32)
    for start in range(0, len(queries), ASKED_AT_ONCE):
        rows = slice(start, start + ASKED_AT_ONCE)
        asked = normalized(queries[rows])
        answer = index.search(asked, count, threads=torch.get_num_threads())
        keys = np.atleast_2d(answer.keys).astype(np.int64)
        counts: Any = getattr(answer, "counts", keys.shape[1])  # of one query there are none
        keys = np.pad(keys, ((0, 0), (0, count - keys.shape[1])))
        none = np.arange(count) >= np.reshape(counts, (-1, 1))  # a graph may find fewer
        found = np.sort(np.where(none, 0, keys), axis=1)
        given = normalized(features[found.ravel()]).reshape(*found.shape, -1)
        similarity = np.einsum("qcd,qd->qc", given, asked).clip(-1, 1)
        similarity[:, 1:][found[:, 1:] == found[:, :-1]] = -np.inf
        best = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
        indices[rows], values[rows] = (np.take_along_axis(part, best, axis=1) for part in (found, similarity))
    short = np.isneginf(values).any(axis=1)
    if short.any():
        indices[short], values[short] = nearest(queries[short], features, top)
    return indices, values


def _index(within: Embeddings, path: Path) -> tuple[Any, Recall]:
    """The index beside a file of embeddings, built where there is none of these very rows."""
    from usearch.index import Index  # noqa: PLC0415 - an extra

    beside, about = _beside(path), _beside(path).with_suffix(".usearch.json")
    try:
        kept = Recall(**json.loads(about.read_text()))
        if kept.identity == within.identity:
            return Index.restore(str(beside), view=True), kept
    except (OSError, ValueError, TypeError, RuntimeError):  # none yet, or damaged
        pass
    index, recall = _measured(within, within.identity)
    files.sweep(beside)
    unfinished = files.temporary(beside)
    try:
        index.save(str(unfinished))
        with alone(path.parent, f".claim.{beside.name}"):  # two at once: what is said is said of the index beside it
            about.unlink(missing_ok=True)
            os.replace(unfinished, beside)
            files.write(about, json.dumps(asdict(recall)))
    finally:
        unfinished.unlink(missing_ok=True)
    return index, recall


def _measured(within: Embeddings, identity: str) -> tuple[Any, Recall]:
    index = built(within.features)
    found, asked = recall_of(lambda rows, top: _ranked(index, rows, within.features, top)[0], within.features)
    return index, Recall(identity, found, asked)


def built(features: np.ndarray) -> Any:
    """A graph of rows, each kept in 8-bit integers, half of what half precision takes to keep and to read."""
    from usearch.index import Index  # noqa: PLC0415 - an extra

    index = Index(ndim=features.shape[1], metric="cos", dtype="i8")
    with stage("indexing", len(features)) as bar:
        for start in range(0, len(features), BLOCK):
            rows = normalized(features[start : start + BLOCK])
            index.add(np.arange(start, start + len(rows)), rows, threads=torch.get_num_threads())
            bar.advance(len(rows))
    return index


def recall_of(ask: Callable[[np.ndarray, int], np.ndarray], features: np.ndarray) -> tuple[int, int]:
    """How many of the exact TOP neighbours of ASKED rows `ask` names, of how many."""
    rows = features[numpy_generator(0, "index/recall").permutation(len(features))[:ASKED]]
    exact, given = nearest(rows, features, TOP)[0], ask(rows, TOP)
    return sum(int(np.isin(a, b).sum()) for a, b in zip(exact, given, strict=True)), exact.size


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.usearch")
