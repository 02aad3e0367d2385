"""`headstart demo` and `headstart pretrain`."""

import time
from dataclasses import replace
from pathlib import Path

from headstart.cli.options import Options, Plugins, Sources
from headstart.records.config import Device
from headstart.records.errors import InputError
from headstart.records.presets import PresetName


def demo(out: Path = Path("runs/demo"), device: Device = "auto", threads: int | None = None) -> int:
    """The main job on scikit-learn's digits: both of the paper's heads, compared.

    Args:
        out: where the two runs and their report go; a second call continues or shows what is there.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.demo import run

    return run(out, device, threads)


def pretrain(
    sources: Sources = (),
    *,
    out: Path,
    overwrite: bool = False,
    extend: bool = False,
    max_seconds: float | None = None,
    preset: PresetName | None = None,
    config: Path | None = None,
    plugin: Plugins = (),
    options: Options,
) -> int:
    """One run: autoencoder, head, SimCLR, and probes where there are labels.

    Args:
        sources: folders of pictures, a text or CSV list, or a named set with its root (cifar10:ROOT).
        out: the run folder.
        overwrite: replace a finished run.
        extend: go on with a finished run, by its own settings where none are given: for more SimCLR epochs, or with
            pictures that are new or gone.
        max_seconds: save and stop (exit 75) after this many seconds.
        preset: a setting with a name; `headstart list presets` tells them.
        config: settings from a run's config.yaml; DATA is then optional.
    """
    from headstart.engine.progress import say
    from headstart.training import run as pretraining

    if sources:
        options = replace(options, data=replace(options.data, sources=sources))
    if not options.data.sources:
        raise InputError("pretrain needs DATA: a folder of pictures, a list file, or a named set such as cifar10:ROOT")
    if max_seconds is not None and not max_seconds >= 0:
        raise InputError(f"--max-seconds is {max_seconds:g}; it must be at least 0")
    if preset is None and config is None and not extend and options.backbone.weights != "none":
        say("given weights: careful steps (--preset adapt); they stay unless the adapted ones are clearly better")
    if preset == "paper":
        say(f"precision: the authors computed in float32, this run in {options.precision} (--precision)")
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    path = pretraining.run(options, out, overwrite=overwrite, extend=extend, deadline=deadline)
    from headstart.cli.screen import print_run
    from headstart.engine import distributed

    if distributed.first():
        print_run(path)
    return 0
