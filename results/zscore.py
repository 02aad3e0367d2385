"""What Z-scored pictures do to an autoencoder (contribution 5): `python results/zscore.py` prints the means.

Read from paper/zscore: the paper's autoencoder, whose reconstruction is a sigmoid, and the same without it, on pictures
in [0, 1] and on Z-scored ones. Their errors are in different units, so each is told as explained variance: of a
Z-scored run one less its test MSE, as its values have variance 1 in each channel of the training pictures; of a plain
one, one less the test MSE over the mean of the channels' variances. These differ by 15 %, so that the two weigh
channels a little unlike.
"""

import signal
from pathlib import Path

import pandas as pd
from recorded import table

from headstart.records.files import read_json, read_yaml

STUDY = Path(__file__).parent / "paper" / "zscore"
KINDS = {"mlp": "the paper's, sigmoid last", "unbounded": "the same, without the sigmoid"}


def main(_: Path | None = None) -> None:
    """Print the table as Markdown."""
    means = explained().groupby(["kind", "size", "scored"])["explained"].agg(["mean", "count"])
    rows = []
    for kind, said in KINDS.items():
        for size in sorted({*means.index.get_level_values("size")}):
            plain, scored = (means.loc[(kind, size, value)] for value in (False, True))
            seeds = f"{min(plain['count'], scored['count']):.0f}"
            rows.append([said, str(size), f"{plain['mean']:.1f}", f"{scored['mean']:.1f}", seeds])
    print(table(["autoencoder", "embedding", "pictures in [0, 1]", "Z-scored", "seeds"], rows))


def explained() -> pd.DataFrame:
    """Percent of variance explained, by kind, size of the embedding, seed and whether pictures were Z-scored."""
    rows = []
    for path in sorted(STUDY.glob("runs/autoencoder-*/result.json")):
        result, config = read_json(path), read_yaml(path.with_name("config.yaml"))
        scored = config["autoencoder"]["normalize"]
        variance = 1.0 if scored else sum(std**2 for std in result["data"]["std"]) / 3
        share = 100 * (1 - result["autoencoder"]["test_mse"] / variance)
        rows.append([config["autoencoder"]["kind"], result["head"]["hidden_dim"], config["seed"], scored, share])
    return pd.DataFrame(rows, columns=["kind", "size", "seed", "scored", "explained"])


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
