"""What the authors' own runs say of contributions 1 to 5: `HEADSTART_DATA=DIR python results/authors.py`.

DIR/reference holds their evaluations as they published them (simclr-eval.csv, simclr-eval-ae-nonfrozen.csv: 720 and 45
runs on five sets, one seed, ImageNet weights). Differences within pairs that agree in all else, in points of their own
probe's test accuracy, with Student's t interval over the five sets: the runs of one set share its pictures, its seed
and its autoencoders. Nothing is printed without the files.
"""

import os
import signal
import sys
from pathlib import Path

import pandas as pd
from contributions import Difference, sentence
from recorded import UnreadError

from headstart.statistics import clustered

FILES = ("simclr-eval.csv", "simclr-eval-ae-nonfrozen.csv")
COLUMNS = {
    "dataset_name": "set",
    "projection_head": "head",
    "projection_head_activation": "activation",
    "projection_head_embedding_dim": "hidden_dim",
    "latent_dimensions": "output_dim",
    "standardize": "normalized",
    "test_micro_MulticlassAccuracy": "percent",
}


def main(_: Path | None = None) -> None:
    """Print the items of a Markdown list. Raises UnreadError without their files."""
    folder = Path(os.environ.get("HEADSTART_DATA", "")) / "reference"
    if not all((folder / name).exists() for name in FILES):
        raise UnreadError(
            f"authors.py: HEADSTART_DATA names no folder with reference/{FILES[0]}; their runs are not read"
        )
    main_runs, trainable = (runs(folder / name) for name in FILES)
    heads = main_runs[main_runs["head"] == "ae"], main_runs[main_runs["head"] == "mlp"]
    print(sentence("(1) The frozen pretrained embedding beats the plain head", [difference(*heads)]))
    for name in ("Sigmoid", "Tanh"):
        one, other = (main_runs[main_runs["activation"] == activation] for activation in (name, "ReLU"))
        for kind in ("ae", "mlp"):
            new, old = (runs[runs["head"] == kind] for runs in (one, other))
            print(sentence(f"(2) {name} beats ReLU in their `{kind}` head", [difference(new, old, ("activation",))]))
    narrow, wide = (
        runs[(runs["hidden_dim"] == hidden) & (runs["output_dim"] == output)]
        for runs, hidden, output in zip(heads, (128, 512), (32, 128), strict=True)
    )
    smaller = difference(narrow, wide, but=("head", "hidden_dim", "output_dim"))
    print(sentence("(3) The embedding of 128 with 32 projections beats the plain head of 512 with 128", [smaller]))
    print(sentence("(4) Freezing the pretrained embedding is worth points", [difference(heads[0], trainable)]))
    print(sentence("(5) Z-score costs the paper's autoencoder explained variance", []))


def runs(path: Path) -> pd.DataFrame:
    """One row a run; numbers have decimal commas."""
    found = pd.read_csv(path, decimal=",")[list(COLUMNS)].rename(columns=COLUMNS)
    return found.assign(percent=100 * found["percent"].astype(float))


def difference(one: pd.DataFrame, two: pd.DataFrame, but: tuple[str, ...] = ("head",)) -> Difference:
    """`one` less `two` over pairs that agree in all `but` these."""
    keys = [column for column in COLUMNS.values() if column not in (*but, "percent")]
    pairs = one.merge(two, on=keys, suffixes=("", "_b"))
    gains = pairs["percent"] - pairs["percent_b"]
    test = clustered(gains.to_numpy(), pairs["set"].to_numpy())
    over = f"{pairs['set'].nunique()} sets, {(gains > 0).sum()} of {len(gains)} pairs"
    return Difference("their five sets together", test.mean, test.interval, test.p, pairs["set"].nunique(), over)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    try:
        main()
    except UnreadError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
