"""How a run begins in its folder: compare what is to be done with what is there, refuse, replace, go on or extend.

Comes in: what resolving.py prepared and a run folder that may hold something. Goes out: an `OpenRun`, or one sentence.
"""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from headstart.backbones import check_given, exportable, given_as, trained_with
from headstart.data import Images
from headstart.data.growing import remember
from headstart.data.splits import Splits
from headstart.engine import distributed
from headstart.engine.checkpoint import Checkpoints
from headstart.engine.device import Compute
from headstart.engine.progress import say
from headstart.records import files, plugins, text
from headstart.records.config import STAGES, Config, differences, load, to_yaml
from headstart.records.errors import InputError
from headstart.records.files import read_yaml
from headstart.records.folder import Metrics, RunFolder
from headstart.records.names import FORMATS
from headstart.records.outputs import check_results_folder, no_input
from headstart.records.schema import STAGES_DONE
from headstart.records.version import __version__
from headstart.report.words import listed
from headstart.training import contrastive
from headstart.training.open_run import OpenRun
from headstart.training.resolving import Prepared


def is_finished(folder: RunFolder, config: Config) -> bool:
    """Whether the folder's result holds the stage that is asked for, and its page tells of it."""
    return folder.is_reported() and STAGES.index(folder.read_result()["stage"]) >= STAGES.index(config.stages)


def refuse_finished(folder: RunFolder, config: Config, overwrite: bool, extend: bool) -> None:
    """A finished run is never touched by accident, and no folder of pictures becomes one."""
    if overwrite and extend:
        raise InputError("--overwrite and --extend exclude each other: one begins again, the other goes on")
    no_input(folder.path, config.data.sources)
    if distributed.first():
        check_results_folder(folder.path, "run")
    if not overwrite and _is_nobodys(folder):
        raise InputError(
            f"{folder.path} holds a checkpoint, but no {folder.config.name} that says of which settings; replace it "
            "with --overwrite, or give another --out"
        )
    if not (overwrite or extend) and is_finished(folder, config):
        raise InputError(
            f"{folder.path} holds a finished run (stage {folder.read_result()['stage']}); replace it with "
            "--overwrite, train it for more epochs with --extend, or give another --out"
        )


def open_run(
    folder: RunFolder,
    prepared: Prepared,
    compute: Compute,
    overwrite: bool,
    extend: bool,
    deadline: float | None,
    quiet: bool,
) -> OpenRun:
    """Compare what is to be done with what the folder holds, and begin or go on."""
    config, images, splits = prepared.config, prepared.images, prepared.splits
    changed = _environment_changes(folder, compute) if has_begun(folder) and not overwrite else []
    if overwrite:
        _replace(folder, prepared)
    elif has_begun(folder):
        _compare(folder, prepared, extend)
    metrics = Metrics(folder.metrics)
    checkpoints = Checkpoints(
        folder.checkpoint,
        metrics,
        config.checkpoint.minutes,
        config.checkpoint.epochs,
        deadline,
        writes=distributed.rank() == 0,
    )
    stages = _finished_stages(folder)
    longer = extend and _extends(folder, stages, config, checkpoints)
    if prepared.growth and not quiet:
        more = prepared.growth.news and not longer
        say(f"{prepared.growth}" + ("; more --contrastive.epochs would train on them" if more else ""))
    distributed.wait_for_all()  # everyone has read what rank 0 now changes
    run = OpenRun(folder, config, compute, images, splits, metrics, checkpoints, stages, quiet)
    if "contrastive" in stages and config.data.normalize and config.data.statistics == "train":
        run.moments = dict.fromkeys(("train", "val", "test"), trained_with(folder.backbone))
    if config.stages != "autoencoder" and not quiet:
        _say_exports(config.backbone.name)
    if changed and not quiet:
        say(
            f"begun under {', '.join(was for was, _ in changed)}, goes on under "
            f"{', '.join(now for _, now in changed)}: the result may differ from that of an uninterrupted run"
        )
    if run.writes:
        _begin(run, prepared, longer, changed)
        checkpoints.beside = (folder.config, folder.splits)
    if extend:
        distributed.wait_for_all()  # until a result that no longer holds is gone
        if is_finished(folder, config) and not quiet:
            say("nothing to extend: the same pictures, and no more epochs")
    return run


def _extends(folder: RunFolder, stages: dict[str, Any], config: Config, checkpoints: Checkpoints) -> bool:
    """Whether SimCLR is to go on after its last epoch; then its stage is not finished any more."""
    before = stages.get("contrastive", {}).get("epochs", config.contrastive.epochs)
    if before >= config.contrastive.epochs:
        return False
    say(
        f"extending from {before} to {config.contrastive.epochs} epochs: the learning "
        f"rate follows the cosine of {config.contrastive.epochs} epochs from here, so it rises before it falls"
    )
    if checkpoints.saved is None or checkpoints.saved["stage"] != contrastive.STAGE:
        raise InputError(
            f"{folder.path} cannot be extended: {folder.checkpoint.name}, from which its training would go on, is "
            "gone; replace the run with --overwrite, or give another --out"
        )
    del stages["contrastive"]
    return True


def _environment_changes(folder: RunFolder, compute: Compute) -> list[tuple[str, str]]:
    """Versions, device and threads that a run was begun under and is not now: what they were, what they are."""
    before, now = _about(folder), {"headstart": __version__, **environment(compute)}
    known = [name for name in now if name in before and str(before[name]) != str(now[name])]
    return [(f"{name} {before[name]}", f"{name} {now[name]}") for name in known]


def _about(folder: RunFolder) -> dict[str, Any]:
    """What config.yaml says of how a run was begun."""
    values = read_yaml(folder.config) if folder.config.exists() else {}
    about = values.get("about") if isinstance(values, dict) else None
    return about if isinstance(about, dict) else {}


def begun(folder: RunFolder) -> Config | None:
    """The settings of the run that the folder holds; None where nothing was computed, or they cannot be read."""
    if not has_begun(folder):
        return None
    try:
        return load(folder.config)[0]
    except InputError:  # whoever goes on with it is told; whoever replaces it need not care
        return None


def _begin(run: OpenRun, prepared: Prepared, longer: bool, changed: list[tuple[str, str]]) -> None:
    """Write what was decided, and take away what an earlier process left half done."""
    folder, metrics = run.folder, run.metrics
    for left_behind in folder.path.glob(".*.tmp"):  # by a process that was killed
        left_behind.unlink(missing_ok=True)
    begun_to = folder.stages.exists() and "contrastive" not in run.stages  # by a process that was killed right here
    if folder.is_complete() and (longer or prepared.growth or begun_to):
        for old in (folder.card, *folder.samples.glob("map*")):  # of weights and pictures that are gone
            old.unlink(missing_ok=True)
        files.write_json(folder.stages, run.stages, within=folder.path)
        folder.result.unlink()
    about = _about_now(run, prepared, changed)
    files.write(folder.config, to_yaml(run.config, about), within=folder.path)
    run.splits.save(folder.splits, **(remember(run.images) if prepared.remembers else {}))
    _write_skipped(folder.skipped, run.images)
    if not run.stages:
        metrics.lines[:] = metrics.lines if run.checkpoints.saved else []
    parts = {name: len(part) for name, part in run.parts.items()}
    data = {"stage": "data", "pictures": len(run.images), "skipped": len(run.images.skipped), **parts}
    if [line for line in metrics.lines if line.get("stage") == "data"][-1:] != [data]:
        metrics.log(**data)


def _about_now(run: OpenRun, prepared: Prepared, changed: list[tuple[str, str]]) -> dict[str, Any]:
    """What config.yaml says of how the run is made, with what it says of earlier processes."""
    before = _about(run.folder)
    about: dict[str, Any] = {
        "headstart": __version__,
        "fingerprint": run.images.fingerprint,
        "folder": os.getcwd(),
        **environment(run.compute),
    }
    grown = list(before.get("grown") or ())
    if prepared.growth and grown[-1:] != [asdict(prepared.growth)]:  # or a process that was killed here has said so
        grown.append(asdict(prepared.growth))
    if grown:
        about["grown"] = grown
    resumed = [*(before.get("resumed") or ()), *(f"{was} -> {now}" for was, now in changed)]
    if resumed:
        about["resumed"] = resumed
    if given := given_as(run.config.backbone.weights):
        about["given"] = given
    if modules := plugins.behind(run.config):
        about["plugins"] = modules
    return about


def has_begun(folder: RunFolder) -> bool:
    """Whether anything was computed here. Settings alone, of a command that got no further, bind nobody."""
    computed = (folder.result, folder.stages, *folder.checkpoints)
    return folder.config.exists() and any(path.exists() for path in computed)


def _is_nobodys(folder: RunFolder) -> bool:
    """Whether a training was left here without its settings."""
    return not folder.config.exists() and any(path.exists() for path in folder.checkpoints)


def _replace(folder: RunFolder, prepared: Prepared) -> None:
    """Clear a finished run, and one begun with other settings; what these settings have begun goes on."""
    stale = folder.is_reported() or _is_nobodys(folder)
    if not stale and has_begun(folder):
        try:
            _compare(folder, prepared, extend=False)
        except InputError:
            stale = True
    distributed.wait_for_all()  # every process has read what rank 0 now removes
    if stale and distributed.rank() == 0:
        _clear(folder)
    distributed.wait_for_all()


def _clear(folder: RunFolder) -> None:
    """Remove the files of an earlier run, the one that says it is finished first."""
    named = [folder.result, folder.stages, *folder.checkpoints]
    named += [folder.config, folder.splits, folder.skipped, folder.metrics, folder.report, folder.failed, folder.card]
    named += folder.weights
    named += [*folder.samples.glob("*.png"), *folder.samples.glob("map.*"), *folder.evaluations.glob("*.json")]
    for path in named:
        path.unlink(missing_ok=True)


def _say_exports(backbone: str) -> None:
    """Say before training what the network cannot become after it."""
    formats = exportable(backbone)
    missing = [name for name in FORMATS if name not in formats]
    if missing:
        say(f"{backbone} can be exported as {listed(formats)}, not as {' or '.join(missing)}")


def _finished_stages(folder: RunFolder) -> dict[str, Any]:
    """What the stages that are done found: of a run under way, or of one that was finished up to its `stage`."""
    if folder.stages.exists():
        return files.read_json(folder.stages, STAGES_DONE, "what finished stages found")
    if not folder.is_complete():
        return {}
    result = folder.read_result()
    stages = {name: result[name] for name in ("contrastive", "seconds") if result.get(name)}
    if folder.autoencoder.exists():  # one that was given has no figures, and is done all the same
        stages["autoencoder"] = result["autoencoder"]
    return {**stages, "head": result["geometry"].get("head")}


def _compare(folder: RunFolder, prepared: Prepared, extend: bool) -> None:
    """Refuse to go on with a run under other settings or pictures, showing the difference."""
    config, images = prepared.config, prepared.images
    before, about = load(folder.config)
    check_given(config.backbone.weights, about)
    changed = differences(before, config)
    if extend:  # other labels are new ones: that they differ is in the pictures' growth
        changed.pop("data.labels", None)
        if config.contrastive.epochs >= before.contrastive.epochs:
            changed.pop("contrastive.epochs", None)
    if before.stages == "autoencoder":  # how a batch is cut is decided when SimCLR begins
        changed.pop("contrastive.chunk", None)
    pictures = ""
    if prepared.growth is None:
        if about.get("fingerprint") != images.fingerprint:
            pictures = "the pictures themselves"
        elif folder.splits.exists() and not Splits.load(folder.splits, len(images)).same(prepared.splits):
            pictures = "the pictures themselves, in which --extend has carried the old split over"
    if changed or pictures:
        found = ["more epochs"] * ("contrastive.epochs" in changed) + ["other labels"] * ("data.labels" in changed)
        found += ["new pictures"] * (bool(pictures) and "data.labels" not in changed)
        more = f"; --extend allows {' and '.join(found)}" if found and not extend else ""
        others = "; ".join([f"{name}: {how}" for name, how in changed.items()] + [pictures] * bool(pictures))
        raise InputError(
            f"{folder.path} was begun with other settings ({others}); repeat those, replace the run with "
            f"--overwrite, or give another --out{more}"
        )


def environment(compute: Compute) -> dict[str, str | int]:
    """What a result may depend on besides its settings."""
    name = torch.cuda.get_device_name(compute.device) if compute.device.type == "cuda" else platform.processor()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "device": f"{compute.device.type} {name}".strip(),
        "threads": torch.get_num_threads(),
    }


def _write_skipped(path: Path, images: Images) -> None:
    """skipped.csv: `name,reason` of the pictures set aside, safe to open in a spreadsheet."""
    files.write(path, text.table(("name", "reason"), images.skipped), within=path.parent)
