"""What is there: `headstart check` (pictures), `list` (names), `doctor` (the machine)."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from headstart.cli.choices import listed
from headstart.cli.options import Plugins, Sources, typed, with_plugins
from headstart.cli.screen import done, tell
from headstart.records.config import Config, DataConfig, to_dict
from headstart.records.errors import InputError
from headstart.records.text import number


def check(
    sources: Sources,
    *,
    json: Path | None = None,
    plugin: Plugins = (),
    threads: int | None = None,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen
) -> int:
    """Read every picture once: counts, sizes, classes, unreadable files, duplicates.

    Args:
        sources: folders of pictures, a list, or a named set.
        json: write the findings here as well.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.data import check as checking
    from headstart.engine.progress import Patient
    from headstart.records.files import write_json
    from headstart.records.outputs import check_output_file, check_own, no_input

    if json is not None:
        check_output_file(json, "--json")
        no_input(json, [*sources, data.labels], "--json")
        check_own(json, ("pictures", "duplicates"), "--json")
    found = checking.run(replace(data, sources=sources), threads)
    if json is not None:
        write_json(json, found.to_dict())
    Patient(highlight=False).print(found.table())
    if found.pictures == len(found.unreadable):
        name, why = found.unreadable[0]
        raise InputError(f"of {number(found.pictures, 'picture')} none can be read; {name}: {why}")
    own, usual = (to_dict(Config(data=replace(one, sources=())))["data"] for one in (data, DataConfig()))
    given = shlex.join([*sources, *typed(own, usual, "data."), *with_plugins(plugin)])
    done(
        f"{number(found.pictures - len(found.unreadable), 'picture')} can be used",
        f"headstart pretrain {given} --out runs/first"
        if found.starts
        else f"mend this, and check again: {found.refusal}",
    )
    return 0


def list_(what: Positional[Annotated[str, arg(metavar="WHAT")]], *, json: bool = False, plugin: Plugins = ()) -> int:
    """What can be named, a line each.

    Args:
        what: backbones, presets, probes, data, heads, head-kinds, activations, autoencoders, stems, optimizers,
            objectives, loggers or formats.
        json: print JSON instead of a table.
    """
    from headstart.cli.screen import print_choices

    print_choices(listed(what), json)
    return 0


def doctor() -> int:
    """What a bug report needs: versions, device, precision, threads, disk."""
    from headstart.cli.doctor import describe

    for name, value in describe().items():
        tell(f"{name:<14}{value}")
    tell("next: put these lines into a bug report, with the command and what it said")
    return 0
