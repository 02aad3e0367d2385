"""The probes of a run: seconds of `paper` on 10,000 x 512 features, against the authors' way, and of all of them.

Features are random with a weak signal of ten classes. The authors' way of `paper`: a DataLoader of 32 rows and the
plain loop, 50 epochs, timed over a few and multiplied. `few_shot_5` on 581 x 1,280 features (EfficientNet-Lite0's) in
43 classes, as a folder of photographs has them, against scikit-learn's LogisticRegression on the same draws. All
probes: --count pictures in train and val and 10,000 test pictures, trained and untrained, that is twice; `--width
2048` as of ResNet-50, `--each` every probe by itself, once.

    python -m benchmarks probe [--rounds 3] [--all-rounds 1] [--count 50000] [--width 512] [--each]
"""

import functools
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks import common
from headstart.evaluate import probes
from headstart.records.names import PROBES

WIDTH, CLASSES, EPOCHS = 512, 10, 50
PHOTOGRAPHS = {"train": 581, "test": 344}


def features(n: int, seed: int, width: int = WIDTH, classes: int = CLASSES) -> tuple[np.ndarray, np.ndarray]:
    """n x width float32 and labels."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, n)
    centres = np.random.default_rng(0).normal(size=(classes, width))
    return (generator.normal(size=(n, width)) + 0.15 * centres[labels]).astype(np.float32), labels


def run(sizes: dict[str, int], which: list[str], device: str, width: int = WIDTH, classes: int = CLASSES) -> None:
    """The probes `which` on splits of those sizes."""
    splits = {name: features(n, seed, width, classes) for seed, (name, n) in enumerate(sizes.items(), 1)}
    probes.run(
        {name: x for name, (x, _) in splits.items()},
        {name: y for name, (_, y) in splits.items()},
        {name: [f"{name}/{i}" for i in range(len(y))] for name, (_, y) in splits.items()},
        [str(label) for label in range(classes)],
        which=which,
        device=device,
        say=lambda _: None,
    )


def authors_paper(n: int, epochs: int, device: str) -> float:
    """Seconds of the plain loop over 70 % of n features, for 50 epochs by the rule of three."""
    x, y = features(n, 3)
    cut = n * 7 // 10
    loader = DataLoader(TensorDataset(torch.from_numpy(x[:cut]), torch.from_numpy(y[:cut])), 32, shuffle=True)
    validation = DataLoader(TensorDataset(torch.from_numpy(x[cut:]), torch.from_numpy(y[cut:])), 32)
    model = nn.Linear(WIDTH, CLASSES).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def train() -> None:
        for _ in range(epochs):
            for features, labels in loader:
                loss = nn.functional.cross_entropy(model(features.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                loss.item()
            with torch.no_grad():
                for features, labels in validation:
                    nn.functional.cross_entropy(model(features.to(device)), labels.to(device)).item()

    return common.once(train) * EPOCHS / epochs


def scikit_learns(shots: int, width: int, classes: int) -> None:
    """`few_shot_5` by LogisticRegression as it comes, whose weights are less exact, draw by draw."""
    (x, y), (test, _) = (features(n, seed, width, classes) for seed, n in enumerate(PHOTOGRAPHS.values(), 1))
    x, test = (probes.FEW_SHOT_LENGTH * rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (x, test))
    for draw in probes.label_draws(torch.from_numpy(y), lambda n: min(shots, n), 0).numpy():
        fitted = LogisticRegression(C=probes.FEW_SHOT_C, max_iter=1000).fit(x[draw].astype(float), y[draw])
        fitted.predict(test)


def main(argv: list[str]) -> None:
    """Print seconds and the ratio."""
    parser = common.options("probe", __doc__, rounds=3)
    parser.add_argument("--all-rounds", type=int, default=1, help="rounds of the whole set of probes")
    parser.add_argument("--count", type=int, default=50_000, help="training pictures of the whole set")
    parser.add_argument("--width", type=int, default=WIDTH, help="numbers of a feature vector of the whole set")
    parser.add_argument("--each", action="store_true", help="every probe of the whole set by itself, once, and no more")
    chosen = parser.parse_args(argv)
    torch.set_num_threads(chosen.threads or common.cores())
    print(common.machine(chosen.device))
    large = {"train": chosen.count * 9 // 10, "val": chosen.count // 10, "test": 10_000}
    if chosen.each:
        for name in PROBES:
            began = time.process_time()
            clock = common.once(functools.partial(run, large, [name], chosen.device, chosen.width))
            cpu = time.process_time() - began
            print(f"{name}, {chosen.count:,} x {chosen.width}: {cpu:.1f} processor s, {clock:.1f} s", flush=True)
        return
    small = {"train": 2000, "val": 500, "test": 10_000}
    ways: dict[str, common.Way] = {
        "authors' way": lambda: authors_paper(small["test"], 3, chosen.device),
        "Headstart": lambda: common.once(lambda: run(small, ["paper"], chosen.device)),
    }
    common.table("Probe `paper`, 10,000 x 512", common.interleave(ways, chosen.rounds), "probes")
    ways = {
        "scikit-learn": lambda: common.once(lambda: scikit_learns(5, 1280, 43)),
        "Headstart": lambda: common.once(lambda: run(PHOTOGRAPHS, ["few_shot_5"], chosen.device, 1280, 43)),
    }
    common.table("Probe `few_shot_5`, 581 x 1,280, 43 classes", common.interleave(ways, chosen.rounds), "probes")
    for _ in range(chosen.all_rounds):
        once = functools.partial(run, large, list(PROBES), chosen.device, chosen.width)
        seconds = common.once(once) + common.once(once)
        print(f"\nAll probes, trained and untrained, {chosen.count:,} x {chosen.width}: {seconds:.1f} s", flush=True)
