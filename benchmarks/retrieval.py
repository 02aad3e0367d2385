"""Precision at 10: of the 10 pictures most like a query, how many are of its class?

`python -m benchmarks retrieval RUN --data grocery/`. Queries are the test split, which SimCLR never saw; the pictures
searched are all others. Beside the run's features stand those of the same network before SimCLR, and raw pixels.
Queries of one class resemble each other, so intervals are over classes.
"""

import argparse
from collections.abc import Sequence

import numpy as np

import headstart
from benchmarks import common
from headstart.data import Images
from headstart.data import splits as splitting
from headstart.engine.device import Compute, choose
from headstart.evaluate import features
from headstart.evaluate.neighbours import nearest
from headstart.statistics import clustered
from headstart.use.load import Run

TOP = 10


def main(argv: Sequence[str]) -> None:
    """Print the table and the paired differences."""
    parser = argparse.ArgumentParser(
        prog="benchmarks retrieval", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("--data", required=True)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args(argv)
    run, compute = headstart.load(options.run), choose(threads=options.threads)
    images = run.open_images(options.data)
    splits = splitting.make(images, run.config.data)
    queries = splits.test[images.labels[splits.test] >= 0]
    bank = np.concatenate([splits.train, splits.val])
    classes = images.labels[queries]
    found = {
        name: precision(h[queries], h[bank], classes, images.labels[bank])
        for name, h in representations(run, images, compute).items()
    }
    print(common.machine())
    print(f"{len(queries)} queries, {len(bank)} pictures searched, {len(images.classes)} classes\n")
    print(f"| features | precision at {TOP} | 95 % interval |\n| --- | ---: | --- |")
    for name, values in found.items():
        print(f"| {name} | {cells(values, classes)} |")
    chance = float(np.mean([(images.labels[bank] == label).mean() for label in classes]))
    print(f"| drawn at random | {chance:.3f} | |\n")
    print("| difference, query by query | mean | 95 % interval |\n| --- | ---: | --- |")
    for name in list(found)[1:]:
        print(f"| pretrained - {name} | {cells(found['pretrained'] - found[name], classes)} |")


def representations(run: Run, images: Images, compute: Compute) -> dict[str, np.ndarray]:
    """Features of all pictures: after SimCLR, before it, and the pixels at the run's size, standardised."""
    indices = np.arange(len(images))
    untrained = features.extract(
        run.untrained_backbone(), images, indices, size=run.size, mean=run.mean, std=run.std, compute=compute
    )
    pixels = images.squashed(indices, run.size).flatten(1).float().numpy()
    return {
        "pretrained": run.embed(images, compute=compute),
        "untrained": untrained,
        "raw pixels": (pixels - pixels.mean(axis=0)) / np.maximum(pixels.std(axis=0), 1),
    }


def precision(queries: np.ndarray, bank: np.ndarray, of_query: np.ndarray, of_bank: np.ndarray) -> np.ndarray:
    """Share of the nearest pictures that have the query's class, (Q,)."""
    indices, _ = nearest(queries, bank, TOP)
    return (of_bank[indices] == of_query[:, None]).mean(axis=1)


def cells(values: np.ndarray, classes: np.ndarray) -> str:
    """Mean and interval over classes, as table cells."""
    result = clustered(values, classes)
    low, high = result.interval
    return f"{result.mean:.3f} | {low:.3f} to {high:.3f}"
