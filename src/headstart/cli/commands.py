"""The commands: parse, call, print (design section 4). No logic, and no torch until a command needs it.

Each command is a function whose parameters are its options; its first docstring line is its help. Exit codes: 0 done,
1 failed, 2 bad input, 75 interrupted and resumable.
"""

import functools
import inspect
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional, arg

from headstart.cli.choices import PARSERS, listed
from headstart.records.config import Config, DataConfig
from headstart.records.config import load as load_config
from headstart.records.errors import HeadstartError, InputError, Interrupted
from headstart.records.located import reading as reading_of
from headstart.records.names import Format
from headstart.records.presets import PresetName
from headstart.records.presets import preset as named_preset
from headstart.records.version import __version__
from headstart.study import RunOptions, StudyOptions
from headstart.use.settings import FinetuneSettings

Sources = Positional[Annotated[tuple[str, ...], arg(metavar="DATA...")]]
Options = Annotated[Config, arg(name="")]


def demo(out: Path = Path("runs/demo"), threads: int | None = None) -> int:
    """The main job on the digits that ship with scikit-learn: both of the paper's heads, compared.

    Args:
        out: where the two runs and their report go; a second call continues or shows what is there.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.demo import run

    return run(out, threads)


def pretrain(
    sources: Sources = (),
    *,
    out: Path,
    overwrite: bool = False,
    extend: bool = False,
    max_seconds: float | None = None,
    preset: PresetName | None = None,
    config: Path | None = None,
    options: Options,
) -> int:
    """One run: autoencoder, head, SimCLR, and probes where there are labels.

    Args:
        sources: folders of pictures, a text or CSV list, or a named set with its root (cifar10:ROOT).
        out: the run folder.
        overwrite: replace a finished run.
        extend: go on with a finished run for more SimCLR epochs.
        max_seconds: save and stop (exit 75) after this many seconds.
        preset: a setting with a name; `headstart list presets` tells them.
        config: settings from a run's config.yaml; DATA is then optional.
    """
    from headstart.training import run as pretraining

    if sources:
        options = replace(options, data=replace(options.data, sources=sources))
    if not options.data.sources:
        raise InputError("pretrain needs DATA: a folder of pictures, a list file, or a named set such as cifar10:ROOT")
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    path = pretraining.run(options, out, overwrite=overwrite, extend=extend, deadline=deadline)
    from headstart.cli.screen import print_run
    from headstart.engine import distributed

    if distributed.first():
        print_run(path)
    return 0


Data = Positional[Annotated[tuple[str, ...], arg(metavar="DATA...")]]
RunPath = Positional[Annotated[Path, arg(metavar="RUN")]]
Reading = Annotated[DataConfig, arg(name="data")]
"""The options of `pretrain` that say how DATA is read; they begin as the run's (`_reading_of`)."""


def evaluate(
    backbone: Positional[Annotated[str, arg(metavar="RUN|torchvision:NAME|timm:NAME|FILE")]],
    *,
    sources: Annotated[tuple[str, ...], arg(name="data", metavar="DATA...")] = (),
    out: Path | None = None,
    name: str | None = None,
    weights: str = "none",
    size: int | None = None,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """Every probe of a run, or of a foreign backbone, beside the untrained network.

    Args:
        backbone: a run folder, a network such as torchvision:resnet34, or a state-dict file.
        sources: pictures to judge it on. A run's own where unset.
        out: the JSON file; needed for a foreign backbone. A run's is RUN/evaluations/NAME.json.
        name: NAME of a run's evaluation.
        weights: for a network by name: none, imagenet, or a state-dict FILE.
        size: side of the square pictures in pixels. Unset: the run's, or as --data.size auto.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_evaluation
    from headstart.evaluate import foreign

    found = foreign.evaluate(
        backbone,
        data=sources,
        reading=reading,
        out=out,
        name=name,
        weights=weights,
        size=size,
        device=device,
        threads=threads,
    )
    print_evaluation(found)
    return 0


RunOrEmbeddings = Positional[Annotated[Path, arg(metavar="RUN|EMBEDDINGS")]]


def embed(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    out: Path | None = None,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """Write the representation of every picture: .npz or .parquet.

    Args:
        run: a finished run, or a file that this command wrote, to bring it up to date.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        out: FILE.npz (names, embeddings, labels, classes) or FILE.parquet (name, label, embedding). One that is there
            gets what is new and loses what is gone.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart import load
    from headstart.cli.screen import print_embedded
    from headstart.engine.device import choose
    from headstart.use.embed import embed as write

    folder, own = _run_and_pictures(run, sources)
    out = run if out is None and folder != run else out
    if out is None:
        raise InputError("embed needs --out FILE.npz or FILE.parquet")
    compute, opened = choose(device, threads=threads), load(folder)
    print_embedded(write(opened, opened.open_images(own, reading), out, compute=compute), out)
    return 0


def search(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    query: Path,
    top: int = 10,
    out: Path | None = None,
    json: bool = False,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """The pictures most like a query, as a list and a contact sheet.

    Args:
        run: a finished run, or a file that embed wrote.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        query: a picture file, or a folder of them.
        top: how many.
        out: write a contact sheet here (.png or .jpg).
        json: print JSON instead of a table.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_json, print_neighbours
    from headstart.engine.device import choose
    from headstart.use.embeddings import opened
    from headstart.use.search import search as find

    compute = choose(device, threads=threads)
    found = find(opened(run, sources, reading, compute), query, top=top, out=out)
    if json:
        answers = [one.to_dict() for one in found]
        print_json(answers if query.is_dir() else answers[0]["found"])
    else:
        print_neighbours(found, out)
    return 0


def select(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    n: Annotated[int, arg(aliases=["-n"])],
    similarity: float = 0.995,
    out: Path = Path("selection"),
    json: bool = False,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """Near-duplicates, outliers, and what to label next, as lists and contact sheets.

    Args:
        run: a finished run, or a file that embed wrote.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        n: how many pictures to label next, and how many outliers to show.
        similarity: cosine similarity from which two pictures are near-duplicates.
        out: a folder for the lists (.csv) and sheets (.png).
        json: print JSON instead of sentences.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_json, print_selection
    from headstart.engine.device import choose
    from headstart.use.embeddings import opened
    from headstart.use.select import select as choose_pictures

    compute = choose(device, threads=threads)
    found = choose_pictures(opened(run, sources, reading, compute), n, similarity=similarity, out=out)
    if json:
        print_json(found.to_dict())
    else:
        print_selection(found, out)
    return 0


def finetune(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    out: Path,
    overwrite: bool = False,
    settings: Annotated[FinetuneSettings, arg(name="")] = FinetuneSettings(),  # noqa: B008 - frozen
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """A classifier from few or all labels, beside the same network as it was before SimCLR.

    Args:
        run: a finished run, or a file that embed wrote, for its run and its pictures.
        sources: labelled pictures. The run's own where left out.
        out: the classifier's folder.
        overwrite: replace a finished classifier.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart import load
    from headstart.cli.screen import print_finetuned
    from headstart.engine.device import choose
    from headstart.use.finetune import finetune as train

    folder, own = _run_and_pictures(run, sources)
    compute, opened = choose(device, threads=threads), load(folder)
    images = opened.open_images(own, reading)
    print_finetuned(train(opened, images, out, settings, overwrite=overwrite, compute=compute))
    return 0


def predict(
    run: RunPath,
    sources: Positional[Annotated[tuple[str, ...], arg(metavar="PICTURES...")]],
    *,
    out: Path,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """The class of every picture, with its probability and how unlike the training pictures it is.

    Args:
        run: a folder made by finetune.
        sources: folders of pictures, a list, or a named set.
        out: the CSV file: name,label,probability,distance,unlike.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_predicted
    from headstart.engine.device import choose
    from headstart.use.predict import predict as write

    print_predicted(write(run, sources, out, data=reading, compute=choose(device, threads=threads)), out)
    return 0


def export(
    run: RunPath,
    *,
    format: Format,
    out: Path,
    device: str = "auto",
    threads: int | None = None,
) -> int:
    """The backbone for other tools, and RUN/MODEL_CARD.md; or a classifier that finetune made.

    Args:
        run: a finished run, or a classifier's folder.
        format: torchvision, timm or onnx.
        out: FILE.safetensors or FILE.pt; FILE.onnx.
        device: where the features that the file must give are computed: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart import load
    from headstart.cli.screen import print_exported
    from headstart.engine.device import choose
    from headstart.use.export import export as write

    source = run if (run / "finetune.json").exists() else load(run)
    write(source, format, out, compute=choose(device, "float32", threads))
    print_exported(source, out)
    return 0


Settings = Annotated[
    tuple[tuple[str, ...], ...],
    tyro.conf.UseAppendAction,
    arg(help="settings for every run, such as contrastive.epochs=50"),
]
"""`--set A B`, and `--set A --set B`: of a plain tuple the second would silently replace the first."""
STUDY = "a YAML file, a study folder, or a preset (paper, paper:cifar10, controls, smoke)"
StudyName = Positional[Annotated[str, arg(metavar="STUDY", help=STUDY)]]


def study_plan(
    study: StudyName,
    *,
    out: Path | None = None,
    set: Settings = (),
    calibrate: bool = True,
    selection: Annotated[StudyOptions, arg(name="")] = StudyOptions(),  # noqa: B008 - frozen
) -> int:
    """What a study would run, how many, and how long it would take; starts nothing.

    Args:
        out: the study folder, whose finished runs do not count again.
        calibrate: time a few training steps for the estimate.
    """
    from headstart import study as studies
    from headstart.cli import study_screen

    plan = studies.plan(study, out=out, overrides=sum(set, ()), calibrate=calibrate, **vars(selection))
    study_screen.print_plan(plan)
    return 0


def study_run(
    study: StudyName,
    *,
    out: Path,
    set: Settings = (),
    options: Annotated[RunOptions, arg(name="")] = RunOptions(),  # noqa: B008 - frozen
) -> int:
    """Do what a study has not done yet, here or on Ray, and report.

    Args:
        out: the study folder.
    """
    from headstart import study as studies
    from headstart.cli import study_screen
    from headstart.report import write_report

    summary = studies.run(study, out, overrides=sum(set, ()), **vars(options))
    study_screen.print_summary(summary)
    if summary.done:
        print(f"report: {write_report(out)}")
    return summary.exit_code


def study_status(folder: Positional[Annotated[Path, arg(metavar="DIR")]]) -> int:
    """How far a study is: done, running, failed with reasons, to do, time left.

    Args:
        folder: a study folder.
    """
    from headstart import study as studies
    from headstart.cli import study_screen

    study_screen.print_status(studies.status(folder))
    return 0


def study_import(csv: Positional[Annotated[tuple[Path, ...], arg(metavar="CSV...")]], *, out: Path) -> int:
    """The authors' CSV exports as a study folder.

    Args:
        csv: the exported files.
        out: the study folder.
    """
    from headstart.study.imports import import_csv

    print(import_csv(csv, out))
    return 0


def report(folder: Positional[Annotated[Path, arg(metavar="DIR")]], *, probe: str | None = None) -> int:
    """The page, tables and figures of a run or a study.

    Args:
        folder: a run or a study.
        probe: accuracy of this probe. Unset: paper.
    """
    from headstart.report import write_report

    print(write_report(folder, probe))
    return 0


def check(
    sources: Sources,
    *,
    json: Path | None = None,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
) -> int:
    """Read every picture once: counts, sizes, classes, unreadable files, duplicates.

    Args:
        sources: folders of pictures, a list, or a named set.
        json: write the findings here as well.
    """
    from rich.console import Console

    from headstart.data import check as checking
    from headstart.records.files import write_json

    found = checking.run(replace(data, sources=sources))
    Console(highlight=False).print(found.table())
    if json is not None:
        write_json(json, found.to_dict())
    return 0


def list_(what: Positional[Annotated[str, arg(metavar="WHAT")]], *, json: bool = False) -> int:
    """What can be named: backbones, probes, data, presets, heads, activations, autoencoders, optimizers, formats.

    Args:
        what: one of these.
        json: print JSON instead of a table.
    """
    from headstart.cli.screen import print_choices

    print_choices(listed(what), json)
    return 0


def doctor() -> int:
    """What a bug report needs: versions, device, precision, threads, disk."""
    from headstart.cli.doctor import describe

    for name, value in describe().items():
        print(f"{name:<14}{value}")
    return 0


COMMANDS: dict[str, Callable[..., int]] = {
    "demo": demo,
    "pretrain": pretrain,
    "evaluate": evaluate,
    "embed": embed,
    "search": search,
    "select": select,
    "finetune": finetune,
    "predict": predict,
    "export": export,
    "study plan": study_plan,
    "study run": study_run,
    "study status": study_status,
    "study import": study_import,
    "report": report,
    "check": check,
    "list": list_,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _dispatch(argv)
    except HeadstartError as error:
        _complain(f"headstart: {error}")
        code = error.exit_code
    except MemoryError:
        _complain("headstart: out of memory; smaller or fewer pictures (--data.size, --data.limit) need less")
        code = 1
    except KeyboardInterrupt:
        _complain("headstart: stopped; what was saved before is kept")
        code = Interrupted.exit_code
    except BrokenPipeError:  # the reader of our output (head, less) has gone; that is no failure of ours
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:  # a disk, a permission: the system's own words name the file
        _complain(f"headstart: {error}")
        code = 1
    sys.exit(code)


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        _print_help()
        return 0
    if argv[0] == "--version":
        print(f"headstart {__version__}")
        return 0
    words, rest = _command_words(argv)
    command = COMMANDS[words]
    if command is pretrain:
        command = functools.partial(command, options=_base_config(rest))
    elif "reading" in inspect.signature(command).parameters:
        command = functools.partial(command, reading=_reading_of(command, rest))
    return tyro.cli(
        command,
        args=rest,
        prog=f"headstart {words}",
        registry=PARSERS,
    )


def _command_words(argv: list[str]) -> tuple[str, list[str]]:
    """The command's name (one word, or two for `study plan`) and its arguments."""
    for count in (2, 1):
        words = " ".join(argv[:count])
        if words in COMMANDS:
            return words, argv[count:]
    import difflib

    close = difflib.get_close_matches(argv[0], {name.split()[0] for name in COMMANDS}, n=1)
    hint = f" (perhaps you meant {close[0]})" if close else ""
    raise InputError(f"there is no command {' '.join(argv[:1])!r}{hint}; `headstart --help` lists them")


def _base_config(argv: list[str]) -> Config:
    """What the options start from: a preset and a config file are looked at before everything else."""
    preset, file = _value_of("--preset", argv), _value_of("--config", argv)
    sources = _sources_of(argv)
    if preset is not None and file is not None and not sources:
        sources = load_config(file)[0].data.sources
    base = named_preset(preset, sources)
    return base if file is None else load_config(file, base)[0]


def _run_and_pictures(path: Path, sources: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The run, and DATA: a file of embeddings stands for its own where none are given."""
    from headstart.use.embeddings import run_of

    folder, own, _ = run_of(path)
    return folder, sources or own


def _reading_of(command: Callable[..., int], argv: list[str]) -> DataConfig:
    """What the DATA options of a command on a run start from: how the run's own pictures were read, or those of a
    file of embeddings."""
    from headstart.records.folder import RunFolder

    if {"-h", "--help"} & {*argv}:
        return DataConfig()

    @functools.wraps(command)
    def only_run(**given: object) -> object:
        return next(iter(given.values()))

    path = Path(str(tyro.cli(only_run, args=argv, prog="headstart")))
    if path.suffix in (".npz", ".parquet") and path.is_file():
        from headstart.use.embeddings import run_of

        return run_of(path)[2] or DataConfig()
    config = RunFolder(path).config
    return reading_of(load_config(config)[0]) if config.exists() else DataConfig()


def _sources_of(argv: list[str]) -> tuple[str, ...]:
    """DATA, wherever it stands among the options; nothing where the parser will complain or show its help."""
    if not any(here.partition("=")[0] == "--preset" for here in argv) or {"-h", "--help"} & {*argv}:
        return ()

    @functools.wraps(pretrain)
    def only_sources(sources: Sources = (), **_: object) -> tuple[str, ...]:
        return sources

    return tyro.cli(
        functools.partial(only_sources, options=Config()), args=argv, prog="headstart pretrain", registry=PARSERS
    )


def _value_of(option: str, argv: list[str]) -> str | None:
    for here, after in itertools.zip_longest(argv, argv[1:]):
        if here == option:
            return after
        if here.startswith(f"{option}="):
            return here.split("=", 1)[1]
    return None


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    for name, command in COMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", (command.__doc__ or "").strip().splitlines()[0])
    console = Console()
    console.print("usage: headstart COMMAND ...\n\nSimCLR pretraining with a head start, and an honest answer.\n")
    console.print(table)
    console.print("\n`headstart COMMAND --help` lists a command's options.")


def _complain(text: str) -> None:
    from headstart.records.text import printable

    print(printable(text), file=sys.stderr)
