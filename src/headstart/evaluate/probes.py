"""The probes: how good is a frozen representation h? (paper 3.6; definitions in docs/evaluation.md)

Comes in: features of the train, val and test split, their labels and names. Goes out: one dictionary per
probe, as result.json holds it. A probe that the labels do not allow is left out, and says why.

Every draw follows from the seeds and the pictures' names, and each split is put in the order of its names
first, so that the order in which pictures arrive changes nothing, and every head is judged on the same draws.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.engine.progress import say as to_screen
from headstart.engine.randomness import generator, order
from headstart.evaluate import logistic
from headstart.evaluate.neighbours import NEIGHBOURS, TEMPERATURE, votes
from headstart.evaluate.scores import among_top5, by_class, confusion_of, macro_of, most_confused
from headstart.records.names import PROBES
from headstart.statistics import t_interval, wilson

QUERIES, ROWS = 2**8, 2**17
"""Rows of queries and of the bank that `knn` compares at once: 128 MiB of similarities. All rows of a bank of a million
at once would leave 47 queries, which a product of matrices does not get fast with."""
DRAWS = 8
"""Draws of labelled pictures behind every few-label probe."""
FEW_SHOT_C, FEW_SHOT_LENGTH = 0.1, 10.0
"""C of `few_shot_1` and `few_shot_5`, and the length of the features they are fitted on."""
C_GRID = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""scikit-learn's C, tried in this order by `linear`, `linear_1pct` and `linear_10pct`."""
C_WITHOUT_VAL = 1e-2
"""Used where no val picture has a label."""

Result = dict[str, Any]


class LeftOut(Exception):  # noqa: N818 - not an error
    """This probe cannot be run on these labels; the message says why."""


class Task:
    """Labelled pictures of every split in the order of their names, on the device.

    Attributes:
        x: split -> features (N, F) float32 of the labelled pictures.
        y: split -> labels (N,) int64.
        classes: class names; labels index them.
        mean, std: (F,) of all train features, labelled or not; a constant feature has std 1.
    """

    def __init__(
        self,
        features: Mapping[str, np.ndarray],
        labels: Mapping[str, np.ndarray],
        names: Mapping[str, Sequence[str]],
        classes: Sequence[str],
        seed: int,
        split_seed: int,
        device: torch.device | str,
    ) -> None:
        self.classes, self.seed, self.split_seed = list(classes), seed, split_seed
        self.x: dict[str, Tensor] = {}
        self.y: dict[str, Tensor] = {}
        width = next(part.shape[1] for part in features.values())
        self.finite = all(bool(np.isfinite(part).all()) for part in features.values())
        for split in ("train", "val", "test"):
            values = features.get(split, np.empty((0, width), np.float32))
            called = names.get(split, ())
            by_name = np.array(sorted(range(len(called)), key=called.__getitem__), dtype=np.int64)
            x = torch.from_numpy(np.asarray(values, np.float32)[by_name]).to(device)
            y = torch.from_numpy(np.asarray(labels.get(split, ()), dtype=np.int64)[by_name]).to(device)
            if split == "train" and len(x):
                std, self.mean = torch.std_mean(x, dim=0, correction=0)
                # A constant feature's std is rounding noise; dividing by it would blow that noise up.
                self.std = torch.where(std > 1e-6 * self.mean.abs() + 1e-12, std, torch.ones_like(std))
            labelled = y >= 0
            self.x[split], self.y[split] = (x, y) if labelled.all() else (x[labelled], y[labelled])

    def standardised(self, split: str) -> Tensor:
        """Features of a split's labelled pictures, z-scored by those of the whole train split."""
        return (self.x[split] - self.mean).div_(self.std)

    @cached_property
    def rotated(self) -> tuple[dict[str, Tensor], Tensor]:
        """Standardised features of every split along the train split's principal axes, and mean squares there."""
        axes, mean_squares = logistic.principal_axes(self.standardised("train"))
        return {split: self.standardised(split) @ axes for split in self.x}, mean_squares

    def labelled(self, split: str) -> int:
        """How many labelled pictures a split has."""
        return len(self.y[split])


def run(
    features: Mapping[str, np.ndarray],
    labels: Mapping[str, np.ndarray],
    names: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    *,
    which: Sequence[str] = tuple(PROBES),
    seed: int = 0,
    split_seed: int = 0,
    device: torch.device | str = "cpu",
    confusion_up_to: int = 30,
    say: Callable[[str], object] = to_screen,
) -> dict[str, Result]:
    """Run the probes `which` on features that are already extracted.

    Args:
        features: `train`, `val`, `test` -> (N, F) float32; a split may be missing or empty.
        labels: split -> (N,) int64, -1 where a picture has none.
        names: split -> N names, each picture's own.
        classes: class names; labels index them.
        seed: initial weights and order of minibatches of `paper`.
        split_seed: label draws of the few-label probes and the re-split of `paper`.
        device: where to compute.
        confusion_up_to: leave confusion matrices out where there are more classes than this.
        say: gets one line for every reason for which probes are left out.

    Returns:
        Probe name -> `accuracy` (fraction), `n_test`, `ci95`, and its settings; single-draw probes also
        `correct` (Wilson interval), few-label ones `std` and `draws`, the accuracies of eight draws (t
        interval). All have `per_class` (class -> accuracy, None where the test split has none), `majority`
        (share of the test split's most frequent class), and `top5` where there are more than ten classes;
        single-draw probes have `most_confused`, up to ten [class, predicted as, count], and `confusion`
        (rows: class, columns: predicted).
    """
    with _full_precision():
        task = Task(features, labels, names, classes, seed, split_seed, device)
        results: dict[str, Result] = {}
        left_out: dict[str, list[str]] = {}
        for name in which:
            try:
                _check(task, name)
                results[name] = _complete(task, name, PROBES[name].made()(task), say)
            except LeftOut as reason:
                left_out.setdefault(str(reason), []).append(name)
    for why, missing in left_out.items():
        say(f"left out: {'all probes' if len(missing) == len(which) else ', '.join(missing)} ({why})")
    for result in results.values():
        if len(classes) > confusion_up_to:
            result.pop("confusion", None)
    return results


@contextmanager
def _full_precision() -> Iterator[None]:
    """No TF32 within: L-BFGS needs exact gradients near the minimum."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


@contextmanager
def _one_thread() -> Iterator[None]:
    """One CPU thread within: for products this small, threads that wait for each other only lose time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _complete(task: Task, name: str, found: Result | Tensor, say: Callable[[str], object]) -> Result:
    """A probe's result with macro figures; a probe of one's own may return scores (n_test, classes) and no more."""
    if isinstance(found, Tensor):
        return _single(task, found, task.y["test"])
    if "macro" not in found and found.get("confusion") is not None:
        return {**found, "macro": macro_of(torch.as_tensor(found["confusion"]))}
    if "macro" not in found:
        say(f"probe {name} has no macro figures: it returns neither scores nor a confusion matrix")
    return found


def _check(task: Task, name: str) -> None:
    if not task.labelled("test"):
        raise LeftOut("no picture of the test split has a label")
    if not task.finite:
        raise LeftOut("the features hold values that are not finite; the backbone has diverged")
    if name != "paper" and not task.labelled("train"):
        raise LeftOut("no picture of the train split has a label")
    if name != "paper" and len(task.y["train"].unique()) < 2:
        raise LeftOut("all labelled pictures of the train split are of one class")


# ------------------------------------------------------------------------------------------------- the probes


def paper(task: Task) -> Result:
    """Section 3.6 as run: the test split's raw features, split 70/10/20 again, 50 epochs of SGD."""
    x, y = task.x["test"].cpu(), task.y["test"].cpu()
    train, val, test = paper_split(len(y), task.split_seed)
    if min(len(train), len(val), len(test)) == 0:
        raise LeftOut(f"the test split has only {len(y)} labelled pictures, too few to split them 70/10/20")
    present, y = y.unique(return_inverse=True)
    if len(present) < 2:
        raise LeftOut("all labelled pictures of the test split are of one class")
    with _one_thread():
        fit = logistic.sgd(
            x[train],
            y[train],
            x[val],
            y[val],
            start=linear_init(x.shape[1], len(present), task.seed),
            order=lambda epoch: order(task.seed, "probe/paper/order", epoch, len(train)),
        )
    if fit is None:
        raise LeftOut("its loss was not finite in any epoch; the raw features are too large for its learning rate")
    scores = _scatter(x[test] @ fit.weights + fit.biases, present, len(task.classes))
    return _single(task, scores, present[y[test]]) | {
        "epochs": logistic.EPOCHS,
        "lr": logistic.LR,
        "batch_size": logistic.BATCH,
        "steps_per_epoch": math.ceil(len(train) / logistic.BATCH),
        "n_train": len(train),
        "n_val": len(val),
        "best_epoch": fit.epoch,
        "val_loss": fit.val_loss,
        "seed": task.seed,
        "split_seed": task.split_seed,
    }


def linear(task: Task) -> Result:
    """Standardised features, L-BFGS, C chosen on val."""
    everything = torch.arange(task.labelled("train"), device=task.y["train"].device)[None]
    scores, C = next(_regressions(task, everything))
    return _single(task, scores, task.y["test"]) | {"n_train": len(everything[0])} | _setting(task, C)


def _linear_share(share: float) -> Callable[[Task], Result]:
    def probe(task: Task) -> Result:
        """As `linear`, with a share of the train labels: of each class that share, at least one."""
        draws = label_draws(task.y["train"].cpu(), lambda n: max(1, round(share * n)), task.split_seed)
        fits = list(_regressions(task, draws.to(task.y["train"].device)))
        return (
            _drawn(task, (scores for scores, _ in fits))
            | {"n_train": draws.shape[1], "share": share, "split_seed": task.split_seed}
            | _setting(task, [C for _, C in fits])
        )

    return probe


def _few_shot(shots: int) -> Callable[[Task], Result]:
    def probe(task: Task) -> Result:
        """`shots` labelled train pictures a class: L2-normalised h times 10, logistic regression, C 0.1."""
        draws = label_draws(task.y["train"].cpu(), lambda n: min(shots, n), task.split_seed)
        draws = draws.to(task.y["train"].device)
        present, y = task.y["train"].unique(return_inverse=True)
        train, test = (FEW_SHOT_LENGTH * F.normalize(task.x[split], dim=1) for split in ("train", "test"))
        weights, biases = logistic.lbfgs(train[draws], y[draws], len(present), FEW_SHOT_C)
        scores = (_scatter(test @ w + b, present, len(task.classes)) for w, b in zip(weights, biases, strict=True))
        return _drawn(task, scores) | {
            "shots": shots,
            "n_train": draws.shape[1],
            "C": FEW_SHOT_C,
            "split_seed": task.split_seed,
        }

    return probe


def knn(task: Task) -> Result:
    """Cosine; the k nearest labelled train pictures vote with weight exp(similarity / 0.1); under `wide` as many as
    others report, k 200."""
    bank, queries = (F.normalize(task.x[split], dim=1) for split in ("train", "test"))
    ks = sorted({min(k, len(bank)) for k in (NEIGHBOURS, 200)})
    scores: list[list[Tensor]] = [[] for _ in ks]
    for query in queries.split(QUERIES):
        similarity, neighbour = _nearest(query, bank, ks[-1])
        labels = task.y["train"][neighbour]
        for k, parts in zip(ks, scores, strict=True):
            parts.append(votes(similarity[:, :k], labels[:, :k], len(task.classes)))
    found = []
    for k, parts in zip(ks, scores, strict=True):
        vote = torch.cat(parts)
        vote[vote == 0] = -math.inf  # no neighbour of that class: not among the top five either
        found.append(_single(task, vote, task.y["test"]) | {"k": k})
    few, *many = found
    wide = {"wide": {name: many[0][name] for name in ("k", "accuracy", "correct", "ci95")}} if many else {}
    return few | wide | {"temperature": TEMPERATURE, "n_train": len(bank)}


def _nearest(query: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest similarities (Q, k) of unit rows, largest first, and the rows of the bank they are to."""
    values, indices = query.new_empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.int64, device=query.device)
    for first in range(0, len(bank), ROWS):
        similarity = query @ bank[first : first + ROWS].T
        value, index = similarity.topk(min(k, similarity.shape[1]), dim=1)
        values, indices = torch.cat([values, value], 1), torch.cat([indices, first + index], 1)
        values, order = values.topk(min(k, values.shape[1]), dim=1)
        indices = indices.gather(1, order)
    return values, indices


one_shot, five_shot = _few_shot(1), _few_shot(5)
one_percent, ten_percent = _linear_share(0.01), _linear_share(0.1)


# -------------------------------------------------------------------------------------- draws and regressions


def paper_split(n: int, split_seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Train, val and test positions among n pictures, 70/10/20; what rounding leaves goes to train, then val.

    10,000 pictures give 7,000 / 1,000 / 2,000, and 3,925 give 2,748 / 392 / 785, as in the authors' rows.
    """
    lengths = [math.floor(n * share) for share in (0.7, 0.1, 0.2)]
    for i in range(n - sum(lengths)):
        lengths[i] += 1
    train, val, test = order(split_seed, "probe/paper/split", 0, n).split(lengths)
    return train, val, test


def linear_init(in_features: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights (F, C) and biases (C,) uniform in +-1/sqrt(F), which is how torch's Linear starts."""
    draw = torch.rand(in_features + 1, classes, generator=generator(seed, "probe/paper/init"))
    draw = (2 * draw - 1) / math.sqrt(in_features)
    return draw[:-1], draw[-1]


def label_draws(labels: Tensor, take: Callable[[int], int], split_seed: int) -> Tensor:
    """Eight draws of labelled pictures, positions (8, m): of a class with n pictures, `take(n)`.

    The draws depend on `split_seed` and the labels alone. Within a draw, what is taken for fewer labels is
    part of what is taken for more.
    Raises LeftOut when every draw would take everything.
    """
    counts = torch.bincount(labels)
    takes = torch.tensor([take(int(n)) if n else 0 for n in counts])
    if torch.equal(takes, counts):
        raise LeftOut("it would take every label of every class, so its eight draws would be one")
    draws = []
    for d in range(DRAWS):
        shuffled = order(split_seed, "probe/labels", d, len(labels))
        by_class = shuffled[labels[shuffled].argsort(stable=True)]
        draws += [torch.cat([part[:m] for part, m in zip(by_class.split(counts.tolist()), takes, strict=True)])]
    return torch.stack(draws)


def _regressions(task: Task, draws: Tensor) -> Iterator[tuple[Tensor, float]]:
    """For each draw (D, m) of train positions: scores of the test pictures, and the C best on val."""
    present, y = task.y["train"].unique(return_inverse=True)
    features, mean_squares = task.rotated
    x, y, y_val = features["train"][draws], y[draws], task.y["val"]
    grid = C_GRID if len(y_val) else (C_WITHOUT_VAL,)
    fits: list[tuple[Tensor, Tensor]] = []
    for C in grid:
        start = fits[-1] if fits else None
        fits += [logistic.lbfgs(x, y, len(present), C, start=start, mean_squares=mean_squares)]
    for d in range(len(draws)):
        correct = [int((present[(features["val"] @ w[d] + b[d]).argmax(1)] == y_val).sum()) for w, b in fits]
        best = int(np.argmax(correct))  # ties go to the smaller C
        w, b = fits[best]
        yield _scatter(features["test"] @ w[d] + b[d], present, len(task.classes)), grid[best]


def _setting(task: Task, C: float | list[float]) -> Result:
    return {"C": C, "C_chosen_on": "val" if task.labelled("val") else "default: val has no labels"}


# ----------------------------------------------------------------------------------------------------- scores


def _scatter(scores: Tensor, present: Tensor, classes: int) -> Tensor:
    """Scores (n, len(present)) in their classes' columns; classes never trained on get -inf."""
    full = scores.new_full((len(scores), classes), -math.inf)
    full[:, present] = scores
    return full


def _single(task: Task, scores: Tensor, y: Tensor) -> Result:
    """Result of a probe with one fit: Wilson's interval, and what was taken for what."""
    n, classes = len(y), len(task.classes)
    predicted = scores.argmax(1)
    confusion = confusion_of(y, predicted, classes)
    correct = int(confusion.diagonal().sum())
    return {
        "accuracy": correct / n,
        "n_test": n,
        "correct": correct,
        "ci95": list(wilson(correct, n)),
        "macro": macro_of(confusion),
        **by_class(y, confusion.diagonal(), task.classes),
        **among_top5(scores, y),
        "most_confused": most_confused(confusion, task.classes),
        "confusion": confusion.tolist(),
    }


def _drawn(task: Task, scores: Iterator[Tensor]) -> Result:
    """Result of a few-label probe: mean over draws, and Student's interval of that mean."""
    y, classes = task.y["test"], len(task.classes)
    accuracies: list[float] = []
    top5: list[float] = []
    macro: list[dict[str, float]] = []
    hits = torch.zeros(classes, dtype=torch.float64)
    for score in scores:
        confusion = confusion_of(y, score.argmax(1), classes)
        accuracies.append(int(confusion.diagonal().sum()) / len(y))
        macro.append(macro_of(confusion))
        hits += confusion.diagonal() / DRAWS
        top5 += among_top5(score, y).values()
    low, high = t_interval(accuracies)
    return {
        "accuracy": float(np.mean(accuracies)),
        "n_test": len(y),
        "ci95": [max(0.0, low), min(1.0, high)],
        "std": float(np.std(accuracies, ddof=1)),
        "draws": accuracies,
        "macro": {name: float(np.mean([one[name] for one in macro])) for name in macro[0]},
        **by_class(y, hits, task.classes),
        **({"top5": float(np.mean(top5))} if top5 else {}),
    }
