"""Which studies there are: `python results/studies.py` prints the table of details.md."""

import signal
from pathlib import Path

from recorded import HERE, read, studies, table

from headstart.records.files import read_yaml


def main(_: Path | None = None) -> None:
    """Print the table as Markdown, and how many runs it holds."""
    rows, finished, autoencoders, alike = [], 0, 0, set()
    for path in sorted(HERE.rglob("study.yaml")):
        study, records = path.parent.relative_to(HERE).as_posix(), read(path.parent)
        base, runs, probe = records.settings["base"], records.runs, records.settings.get("decides")
        finished, autoencoders = finished + len(runs), autoencoders + len(records.autoencoders)
        alike |= {*map(tuple, records.autoencoders[["kind", "hidden_dim", "seed", "test_mse"]].to_numpy())}
        told = runs if len(runs) else records.autoencoders
        sets = ", ".join(sorted({*map(str, told["dataset" if told is not runs else "set"])}))
        trained = (
            f"{base['contrastive']['epochs']} epochs of SimCLR"
            if len(runs)
            else f"{base['autoencoder']['epochs']} epochs"
        )
        limit = f", {base['data']['limit']:,} pictures" if base["data"].get("limit") else ""
        network = base["backbone"]["name"].removeprefix("timm:tf_") if len(runs) else "autoencoders"
        rows.append(
            [
                f"[{study}]({study}.yaml)",
                f"{sets}{limit}",
                f"{network}, {trained}",
                _steps(path.parent) if len(runs) else "",
                f"`{probe}`" if probe else "",
                *(str(told["seed"].nunique()), str(len(told))),
            ]
        )
    print(table(["study", "pictures", "training", "optimiser, rate, pairs", "decides", "seeds", "runs"], rows, left=5))
    different = sum(len(records.runs) for _, records in studies())
    print(
        f"\n{finished} runs of SimCLR, {different} of them different, and {autoencoders} autoencoders of their own, "
        f"{len(alike)} of them different."
    )


def _steps(study: Path) -> str:
    """By what a study's runs were trained."""
    varied = "contrastive.lr" in str(read_yaml(study / "study.yaml")["factors"])
    settings = read_yaml(sorted((study / "runs").glob("*seed=*"))[0] / "config.yaml")["contrastive"]
    rate = "varied" if varied else f"{settings['lr']:.2g}"
    return f"{settings['optimizer']}, {rate}, {settings['batch_size']}"


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a word
    main()
