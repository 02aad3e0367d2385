"""What raw pixels are worth to the probe that decides: `python results/pixels.py` prints the table of README.md.

For each study whose network is trained from scratch, in percent: the probe on the pictures themselves (channels
Z-scored as its runs did, one vector a picture), on the untrained network and after SimCLR, on average over runs. A
network that stays below pixels has learned little. `python results/pixels.py --take DIR` takes the pixels' figures
anew, from the pictures below DIR, into pixels.json, with the first seed's split.
"""

import argparse
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from recorded import HERE, of_sets, table, whole_studies

from headstart.data import open_images, splits
from headstart.evaluate import probes
from headstart.records.config import load
from headstart.records.errors import InputError
from headstart.records.files import read_json, write_json

KEPT = HERE / "pixels.json"
STUDIES = ("digits/controls", "cifar10/controls", "cifar10/working")


def main(_: Path | None = None) -> None:
    """Print the table as Markdown."""
    print(table(["study", "probe", "pixels, %", "untrained, %", "after SimCLR, %"], list(rows()), left=2))


def rows() -> Iterator[list[str]]:
    """A row a study and probe, of those that a study's runs have."""
    kept = read_json(KEPT)
    for study, records in whole_studies():
        for name, runs in of_sets(records) if study in kept else ():
            results = [records.results[run] for run in runs["run"]]
            for probe, pixels in kept[study].items():
                means = [
                    100 * float(np.mean([result[when][probe]["accuracy"] for result in results]))
                    for when in ("untrained", "probes")
                ]
                yield [f"{study} ({name})", f"`{probe}`", *(f"{value:.1f}" for value in (100 * pixels, *means))]


def of_pixels(study: str, root: Path) -> dict[str, float]:
    """Accuracy of `knn` and `few_shot_5` on the pixels that a study's runs were given."""
    config, about = load(next(iter(sorted((HERE / study / "runs").glob("*seed=0")))) / "config.yaml")
    sources = tuple(str(root / name) if (root / name).exists() else name for name in config.data.sources)
    images = open_images(replace(config.data, sources=sources))
    if images.fingerprint != about["fingerprint"]:
        raise InputError(f"{', '.join(sources)} holds other pictures than those of {study}")
    own = splits.make(images, config.data)
    scores = splits.statistics(images, own, config.data)
    size, features = config.data.size, {}
    assert isinstance(size, int)
    for part in ("train", "val", "test"):
        mean, std = (np.asarray(values)[:, None, None] for values in scores[part])
        pixels = images.squashed(getattr(own, part), size).numpy() / 255
        features[part] = ((pixels - mean) / std).reshape(len(pixels), -1).astype(np.float32)
    rows = {part: getattr(own, part) for part in features}
    found = probes.run(
        features,
        {part: images.labels[at] for part, at in rows.items()},
        {part: [images.names[i] for i in at] for part, at in rows.items()},
        images.classes,
        which=("knn", "few_shot_5"),
    )
    return {name: found[name]["accuracy"] for name in ("knn", "few_shot_5")}


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--take", type=Path, metavar="DIR")
    if taken_from := parser.parse_args().take:
        write_json(KEPT, {study: of_pixels(study, taken_from) for study in STUDIES})
    else:
        main()
