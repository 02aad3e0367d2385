"""What a probe tells besides its accuracy: macro figures, top five, what was taken for what.

Comes in: a confusion matrix or scores. Goes out: what stands in a probe's result (docs/evaluation.md).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

TOP5_ABOVE = 10
"""Top-5 accuracy is reported where there are more classes than this."""


def confusion_of(y: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Counts (classes, classes) on the CPU: rows are true classes, columns predicted ones."""
    return torch.bincount(y * classes + predicted, minlength=classes * classes).view(classes, classes).cpu()


def by_class(y: Tensor, hits: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """`majority`, the share of the commonest class among labels y (n,); `per_class`, each class's share of `hits`
    (classes,), None where no picture is of it."""
    counts = torch.bincount(y, minlength=len(classes)).tolist()
    shares = [hit / n if n else None for hit, n in zip(hits.tolist(), counts, strict=True)]
    return {"majority": max(counts) / len(y), "per_class": dict(zip(classes, shares, strict=True))}


def macro_of(confusion: Tensor) -> dict[str, float]:
    """Unweighted means over the classes that occur, in the labels or in the predictions; nothing over nothing is 0.

    As scikit-learn's `average="macro", zero_division=0`, and torchmetrics' macro average (the authors' CSV files).
    """
    counts = confusion.double()
    hits, predicted, actual = counts.diagonal(), counts.sum(0), counts.sum(1)
    occurs = predicted + actual > 0
    means = {
        "precision": hits / predicted.clamp_min(1),
        "recall": hits / actual.clamp_min(1),
        "f1": 2 * hits / (predicted + actual).clamp_min(1),
    }
    return {name: values[occurs].mean().item() for name, values in means.items()}


def among_top5(scores: Tensor, y: Tensor) -> dict[str, float]:
    """Share of pictures whose own class is among the five highest scores, where there are enough classes."""
    if scores.shape[1] <= TOP5_ABOVE:
        return {}
    own = scores.gather(1, y[:, None])
    among = ((scores > own).sum(1) < 5) & (own[:, 0] > -math.inf)
    return {"top5": among.cpu().double().mean().item()}


def most_confused(confusion: Tensor, classes: Sequence[str]) -> list[list[Any]]:
    """Up to ten [class, predicted as, count], the most frequent mistakes first."""
    wrong = confusion - confusion.diagonal().diag()
    counts, places = wrong.flatten().topk(min(10, wrong.numel()))
    return [
        [classes[place // len(classes)], classes[place % len(classes)], count]
        for count, place in zip(counts.tolist(), places.tolist(), strict=True)
        if count
    ]
