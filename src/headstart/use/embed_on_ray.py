"""Embeddings made by many processes or machines: Ray gives each a part of DATA to read, decode and embed.

Comes in: a run and DATA, which every machine of the cluster finds under the same paths. Goes out: the file that `embed`
writes, brought up to date likewise. No machine decodes more than its parts, none keeps them, and a part that is lost
with its machine is done again by another.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data import catalog
from headstart.data.images import report_skipped, squares_of
from headstart.data.reopen import check_whole, read_as
from headstart.data.source import Source, part
from headstart.engine import progress
from headstart.engine.cluster import RETRIES, cluster, raised, share
from headstart.engine.device import Compute, choose
from headstart.engine.stopping import interrupted_by_signals
from headstart.records import files, plugins
from headstart.records.cluster import RayOptions
from headstart.records.config import DataConfig
from headstart.records.errors import HeadstartError, InputError, RunError
from headstart.records.located import places
from headstart.records.outputs import no_input
from headstart.use.embed import STOPPED, Embedded, Kept, check_out, kept_in
from headstart.use.embeddings import about, paths_of
from headstart.use.embeddings_file import Named, write_npz, write_parquet
from headstart.use.load import Run, load

PART = 1024
"""Pictures of a task: half a gigabyte at 224 px."""


def embed_on_ray(
    run: Run,
    sources: Sequence[str],
    out: str | Path,
    options: RayOptions,
    *,
    reading: DataConfig | None = None,
    paths: bool = False,
    device: str = "auto",
    threads: int | None = None,
    quiet: bool = False,
) -> Embedded:
    """As `embed`, on a Ray cluster: an existing one, or one on this machine that ends with this call (extra `ray`).

    reading: DATA options, as `Run.open_images` takes them.

    Raises:
        InputError: as `embed` does; labels that need the pictures to be known first. RunError: a part failed, or its
        machine was lost too often. Interrupted: stopped; what was there is left.
    """
    out = files.expanded(out)
    check_out(out)
    data = _data_of(run, tuple(sources), reading)
    no_input(out, data.sources)
    source = catalog.find(data)
    for note in source.notes:
        progress.say(note)
    compute = choose(device, threads=threads)
    said = about(run, data, compute)
    kept = kept_in(out, said, quiet)
    write = write_npz if out.suffix == ".npz" else write_parquet
    width = int(run.backbone.num_features)  # type: ignore[arg-type]
    with (
        interrupted_by_signals(STOPPED),
        cluster(options) as ray,
        progress.stage("embedding", len(source.names), quiet=quiet) as bar,
    ):
        given = share(ray, options, threads, device)
        where, modules = str(run.folder.path.absolute()), tuple(plugins.behind(run.config))
        order = Order(where, os.getcwd(), modules, data, listing(source), device, compute.precision, given.threads)
        task = ray.remote(num_returns=2, max_retries=RETRIES, **given.resources)(embed_part)
        known = ray.put(np.sort(np.array(list(kept.rows), dtype="S16")))
        asked = [task.remote(order, start, start + PART, known) for start in range(0, len(source.names), PART)]
        parts = []
        for reference, _ in asked:
            parts.append(_answer(ray, reference))
            bar.advance(PART)
        named = _named(source, parts, data.max_skipped)
        old = kept.of(named.digests)
        blocks = _blocks(ray, parts, [h for _, h in asked], kept, old)
        lie = paths_of(named.names, source) if paths or kept.paths else None
        files.sweep(out)
        files.write(out, lambda file: write(file, named, blocks, width, json.dumps(said), lie))
    return Embedded(len(named), int((old < 0).sum()), kept.gone(named.digests))


def _data_of(run: Run, sources: tuple[str, ...], reading: DataConfig | None) -> DataConfig:
    """The options under which DATA is read; whether it is the run's own is told by where it lies alone."""
    if reading is not None:
        check_whole(reading, run.config.data)
    data, as_own = read_as(run.config, run.result, sources, reading)
    if as_own is None or places(data.sources) == places(run.config.data.sources):
        return as_own or data
    if as_own.labels == "none":
        return data
    raise InputError(
        f"the labels of the run's own pictures are those of {as_own.labels}, and on a cluster it is not known before "
        "they are read whether these are the same; give --data.labels FILE, folders or none"
    )


def listing(source: Source) -> str:
    """A name of what DATA lists, so that every machine embeds the same."""
    return hashlib.blake2b("\0".join(source.names).encode(), digest_size=8).hexdigest()


# --------------------------------------------------------------------------------------------------- in a Ray process


@dataclass(frozen=True)
class Order:
    """What every task is told.

    Attributes:
        run, folder: the run's folder, and the one that relative names are of.
        plugins: modules that the run needs.
        data: DATA and its options; listing: what it lists.
        device, precision, threads: how to compute.
    """

    run: str
    folder: str
    plugins: tuple[str, ...]
    data: DataConfig
    listing: str
    device: str
    precision: str
    threads: int


@dataclass(frozen=True)
class Part:
    """Of a part's pictures that can be read: their contents (n, 16) uint8, and which were embedded now, (n,) bool; and
    (name, reason) of the others."""

    digests: np.ndarray
    fresh: np.ndarray
    skipped: list[tuple[str, str]]


_opened: dict[Order, tuple[Run, Source, Compute]] = {}
"""What this Ray process keeps for its next part."""


def embed_part(order: Order, start: int, stop: int, known: np.ndarray) -> tuple[Part, np.ndarray]:
    """Some of the pictures that an order lists, and embeddings (n, num_features) of those whose content is not among
    `known`, 16 bytes each, sorted."""
    if order not in _opened:
        _opened.clear()
        _opened[order] = _open(order)
    run, source, compute = _opened[order]
    images = squares_of(part(source, slice(start, stop)), order.data)
    fresh = ~np.isin(images.digests.reshape(-1, 16).view("S16").ravel(), known)
    return Part(images.digests, fresh, images.skipped), run.features_of(images, np.flatnonzero(fresh), compute)


def _open(order: Order) -> tuple[Run, Source, Compute]:
    with contextlib.suppress(OSError):  # another machine may not have it
        os.chdir(order.folder)
    plugins.use(order.plugins)
    run, source = load(order.run), catalog.find(order.data)
    if listing(source) != order.listing:
        raise InputError(
            f"{', '.join(order.data.sources)} lists {len(source.names):,} other pictures on another machine of the "
            "cluster, or has changed meanwhile; every machine must find the same ones there"
        )
    return run, source, choose(order.device, order.precision, order.threads)


# ----------------------------------------------------------------------------------------------------- from its answers


def _answer(ray: Any, reference: Any) -> Any:
    """What a task gives back. Raises what it raised, as one sentence."""
    try:
        return ray.get(reference)
    except HeadstartError as error:
        raise raised(error) from None
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()
        raise RunError(f"a part could not be embedded ({why[-1] if why else type(error).__name__})") from None


def _named(source: Source, parts: Sequence[Part], max_skipped: float) -> Named:
    """The pictures that could be read; of the others is said how many. Raises InputError where they are too many."""
    skipped = [one for answer in parts for one in answer.skipped]
    gone = {name for name, _ in skipped}
    good = [i for i, name in enumerate(source.names) if name not in gone]
    report_skipped(source.skipped + skipped, len(good), max_skipped)
    digests = np.concatenate([answer.digests.reshape(-1, 16) for answer in parts])
    return Named([source.names[i] for i in good], source.labels[good], list(source.classes), digests)


def _blocks(
    ray: Any, parts: Sequence[Part], embedded: Sequence[Any], kept: Kept, old: np.ndarray
) -> Iterator[np.ndarray]:
    """Embeddings of a part at a time: those it embedded, fetched now, and those that are kept, at the rows `old`."""
    done = 0
    for answer, reference in zip(parts, embedded, strict=True):
        fresh, own = _answer(ray, reference), old[done : done + len(answer.fresh)]
        done += len(own)
        block = np.empty((len(own), fresh.shape[1]), np.float32)
        block[answer.fresh] = fresh
        if not answer.fresh.all():
            block[~answer.fresh] = kept.features[own[~answer.fresh]]
        yield block
