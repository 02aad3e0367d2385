"""Which weights a run ends with: as given, as adapted, or a mixture of both (`contrastive.keep best-probe`).

SimCLR can leave a backbone worse than it was given, and nobody sees that in its loss. Here the versions are compared on
what the user has: labels of train and val, cross-validated (evaluate/versions.py), or without any the pictures alone
(evaluate/unlabelled.py), never the test split. Mixtures of the weights often keep what the given ones know and gain
what the pictures teach (WiSE-FT: Wortsman et al. 2022).
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from headstart.data.splits import Splits
from headstart.engine.progress import say
from headstart.engine.randomness import generator
from headstart.evaluate import unlabelled, versions
from headstart.evaluate.views import augmenter, pair_features
from headstart.records.text import number
from headstart.report.verdict import kept_sentence
from headstart.training.feed import mixed as mixed_order
from headstart.training.open_run import OpenRun

State = dict[str, Tensor]
HELD_OUT, RANKED = 256, 4096
"""Held-out pictures whose views are looked for, and training pictures whose features are ranked, at most."""
FEWEST = 16
"""Held-out pictures that can judge where labels are too few."""
VIEW_PAIRS = 4


def keep_best(run: OpenRun, given: nn.Module, adapted: nn.Module) -> dict[str, Any]:
    """Leave in `adapted` the weights that represent the run's own pictures best.

    Args:
        given: the backbone as it was before SimCLR.
        adapted: the same network after it; changed in place.

    Returns:
        What is said of it in result.json: `share` of the way from given to adapted that was kept, how it was decided
        (`by` labels, pictures or nothing), and each version's figures.
    """
    shares = [0.0, *sorted({*run.config.contrastive.interpolate} - {0.0, 1.0}), 1.0]
    states = [interpolated(given.state_dict(), adapted.state_dict(), share) for share in shares]
    by = judge(run.images.labels, run.splits, run.config.data.split_seed)
    kept = {"labels": _by_labels, "pictures": _by_pictures, "nothing": _by_nothing}[by](run, given, states) | {"by": by}
    best = kept.pop("best")
    adapted.load_state_dict(states[best])
    versions_of = [{"share": share, **found} for share, found in zip(shares, kept.pop("versions"), strict=True)]
    kept = {"share": shares[best], **kept, "versions": versions_of}
    if run.writes:
        say(kept_sentence(kept))
    return kept


def judge(labels: np.ndarray, splits: Splits, split_seed: int) -> Literal["labels", "pictures", "nothing"]:
    """What versions of a backbone are compared by, which is known before any training.

    labels: of all pictures, -1 where there is none.
    """
    if len(versions.judged(labels[_seen(splits)], split_seed)):
        return "labels"
    return "pictures" if len(splits.val) >= FEWEST else "nothing"


def unjudged(labels: np.ndarray, splits: Splits, split_seed: int) -> list[str]:
    """What to say before a training that nothing will judge."""
    if judge(labels, splits, split_seed) != "nothing":
        return []
    return [
        f"too few labels to judge by, and {number(len(splits.val), 'held-out picture')} where {FEWEST} are needed: the "
        "given weights will be kept, whatever SimCLR makes of them; a few dozen labels let the run choose, and "
        "--contrastive.keep last keeps the adapted ones unjudged"
    ]


def _seen(splits: Splits) -> np.ndarray:
    return np.concatenate([splits.train, splits.val])


def _by_nothing(run: OpenRun, network: nn.Module, states: list[State]) -> dict[str, Any]:
    """The given weights: nothing shows that others are better."""
    return {"best": 0, "pictures": 0, "versions": [{} for _ in states]}


def _by_labels(run: OpenRun, network: nn.Module, states: list[State]) -> dict[str, Any]:
    """Cross-validated probes."""
    pictures, split_seed = _seen(run.splits), run.config.data.split_seed
    labels = run.images.labels[pictures]
    rows = versions.judged(labels, split_seed)
    verdicts = []
    for state in states:
        network.load_state_dict(state)
        features = run.features(network, pictures[rows], "train")
        verdicts.append(versions.judge(features, labels[rows], split_seed))
    leads = [verdict.ahead_of(verdicts[0]) for verdict in verdicts]
    found = [
        {**verdict.accuracy, "ahead": ahead, "error": error}
        for verdict, (ahead, error) in zip(verdicts, leads, strict=True)
    ]
    return {"best": versions.chosen(verdicts), "pictures": len(rows), "versions": found}


def _by_pictures(run: OpenRun, network: nn.Module, states: list[State]) -> dict[str, Any]:
    """Retrieval of one view by the other, and RankMe."""
    held_out, seen = (mixed_order(part, run.config.seed) for part in (run.splits.val, run.splits.train))
    held_out = held_out[:HELD_OUT]
    augment = augmenter(run.config.augment, run.size, *run.statistics("val")).to(run.compute.device)
    figures = []
    for state in states:
        network.load_state_dict(state)
        rank = unlabelled.centred_rank(torch.from_numpy(run.features(network, seen[:RANKED].numpy(), "train")))
        found = [
            unlabelled.retrieval(pair_features(network, run.images, held_out, augment, run.compute, draws))
            for draws in (generator(0, "held-out-views", k) for k in range(VIEW_PAIRS))
        ]
        figures.append(unlabelled.Figures(float(np.mean(found)), rank))
    best = unlabelled.chosen(figures)
    return {"best": best, "pictures": len(held_out), "versions": [vars(f) for f in figures]}


def interpolated(given: dict[str, Tensor], adapted: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Weights `share` of the way from one to the other; what is no floating-point number is the adapted network's."""
    return {
        name: torch.lerp(tensor.to(adapted[name]), adapted[name], share)
        if tensor.is_floating_point()
        else adapted[name].clone()
        for name, tensor in given.items()
    }
