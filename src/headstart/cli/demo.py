"""`headstart demo`: the main job on the digits that ship with scikit-learn.

1,797 real scans of handwritten digits, grown to 32x32 RGB. One autoencoder, then SimCLR with the paper's two heads
(its `ae`: frozen autoencoder; its `mlp`: trainable random) at the same seed and data order, all stages real. The folder
is a study of two runs, so `headstart report` reads it like any other.
"""

from dataclasses import replace
from pathlib import Path

from headstart import autoencoders, data, report
from headstart.data import splits as splitting
from headstart.engine.device import checked_threads, named
from headstart.engine.progress import say
from headstart.engine.stopping import give_way
from headstart.records import files
from headstart.records import folder as runs
from headstart.records.claim import owned
from headstart.records.config import (
    AugmentConfig,
    AutoencoderConfig,
    BackboneConfig,
    Config,
    ContrastiveConfig,
    DataConfig,
    HeadConfig,
    ProbeConfig,
    to_dict,
)
from headstart.records.folder import RunFolder
from headstart.records.outputs import check_results_folder
from headstart.training import run as pretraining
from headstart.training.result import of_before

HEADS = {
    "autoencoder-frozen": HeadConfig(init="autoencoder", frozen=True),
    "random-trainable": HeadConfig(init="random", frozen=False),
}
DECIDES = "few_shot_1"
"""Few labels are where pretraining is meant to help."""


def config() -> Config:
    """The settings both runs share: small, and no mirrored digits."""
    return Config(
        data=DataConfig(sources=("digits",)),
        backbone=BackboneConfig(name="resnet18"),
        autoencoder=AutoencoderConfig(epochs=60, lr=1e-3),
        augment=AugmentConfig(crop_scale=(0.3, 1.0), flip=0.0),
        contrastive=ContrastiveConfig(epochs=30),
        probe=ProbeConfig(names=("paper", "linear", "knn", "few_shot_1", "few_shot_5")),
    )


def run(out: Path, device: str = "auto", threads: int | None = None) -> int:
    """Do what is not done yet, then print the comparison and the report's path."""
    from headstart.cli.screen import done, print_comparison

    base = replace(config(), device=device, threads=checked_threads(threads))
    named(device)
    check_results_folder(out, "study")
    with owned(runs.RunFolder(out).open(), "demo", give_way, ".claim.demo"):
        page = _continued(out, base)
    print_comparison({name: RunFolder(out / "runs" / name).read_result() for name in HEADS})
    done(f"report: {page}", "open it in a browser, then `headstart check` a folder of your own")
    return 0


def _continued(out: Path, base: Config) -> Path:
    """Do the runs that are not done, and write the report; returns its path."""
    if not (out / "study.yaml").exists():
        files.write(out / "study.yaml", files.as_yaml(_study(base)))
    images, splits, embedding, before = None, None, None, None
    for name, head in HEADS.items():
        folder = RunFolder(out / "runs" / name)
        if not folder.is_reported():
            images = images or data.open_images(base.data)
            splits = splits or splitting.make(images, base.data)
            say(f"{name}: {len(splits.train)} training pictures")
            pretraining.run(
                replace(base, head=head),
                folder.path,
                images=images,
                splits=splits,
                autoencoder=embedding,
                before=before,
            )
        before = of_before(folder.read_result())
        if head.needs_autoencoder:
            embedding = autoencoders.load(folder.autoencoder)
    return report.write_report(out, DECIDES)  # the study.yaml of an older demo does not name it


def _study(base: Config) -> dict[str, object]:
    """study.yaml of the two runs."""
    heads = [{"init": head.init, "frozen": head.frozen} for head in HEADS.values()]
    factors, seeds = {"head": heads}, [base.seed]
    return {"base": to_dict(base), "factors": factors, "seeds": seeds, "decides": DECIDES, "compare": ["head"]}
