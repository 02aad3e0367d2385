"""What one does with a finished run: evaluate, embed, search, select, finetune, predict, export."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from headstart.cli.options import Data, Plugins, Reading, RunPath
from headstart.records.cluster import RayOptions
from headstart.records.config import DataConfig
from headstart.records.errors import InputError
from headstart.records.names import Format
from headstart.use.settings import FinetuneSettings


def evaluate(
    backbone: Positional[Annotated[str, arg(metavar="RUN|FILE|NETWORK")]],
    sources: Data = (),
    *,
    data: Annotated[tuple[str, ...], arg(metavar="DATA...")] = (),
    out: Path | None = None,
    name: str | None = None,
    weights: str = "none",
    size: int | None = None,
    fetch: bool = False,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """Every probe of a run, or of a foreign backbone, beside the untrained network.

    Args:
        backbone: a run folder, a file that embed wrote (for its run and pictures), a network such as
            torchvision:resnet34, or a state-dict file.
        sources: pictures to judge it on. A run's own where left out.
        data: the same, behind its name.
        out: the JSON file; needed for a foreign backbone. A run's is RUN/evaluations/NAME.json.
        name: NAME of a run's evaluation.
        weights: for a network by name: none, pretrained, imagenet, a state-dict FILE or a RUN.
        size: side of the square pictures in pixels. Unset: the run's, or as --data.size auto.
        fetch: judge the library's weights of the network too where they are not on this machine: fetches them.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_evaluation
    from headstart.evaluate import foreign

    if sources and data:
        raise InputError(f"evaluate takes DATA once: {sources[0]}, or --data {data[0]}")
    folder, own = _run_and_pictures(Path(backbone), sources or data)
    found = foreign.evaluate(
        backbone if folder == Path(backbone) else folder,
        data=own,
        reading=reading,
        out=out,
        name=name,
        weights=weights,
        size=size,
        fetch=fetch,
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
    paths: bool = False,
    executor: Literal["local", "ray"] = "local",
    ray: RayOptions = RayOptions(),  # noqa: B008 - frozen
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """Write the representation of every picture: .npz or .parquet.

    Args:
        run: a finished run, or a file that this command wrote, to bring it up to date.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        out: FILE.npz (names, embeddings, labels, classes) or FILE.parquet (name, label, embedding). One that is there
            gets what is new and loses what is gone.
        paths: write where each picture lies as well: `paths`, or a last column `path`.
        executor: local, or ray: a local or existing Ray cluster (extra `ray`), whose machines all see DATA and the run.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart import load
    from headstart.cli.screen import print_embedded
    from headstart.engine.device import choose
    from headstart.use.embed import check_out
    from headstart.use.embed import embed as write

    folder, own = _run_and_pictures(run, sources)
    out = run if out is None and folder != run else out
    if out is None:
        raise InputError("embed needs --out FILE.npz or FILE.parquet")
    check_out(out)
    if executor == "ray":
        from headstart.use.embed_on_ray import embed_on_ray

        done = embed_on_ray(load(folder), own, out, ray, reading=reading, paths=paths, device=device, threads=threads)
    else:
        compute, opened = choose(device, threads=threads), load(folder)
        done = write(opened, opened.open_images(own, reading), out, paths=paths, compute=compute)
    print_embedded(done, out)
    return 0


def search(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    query: Annotated[tuple[Path, ...], UseAppendAction, arg(metavar="PICTURE")],
    top: int = 10,
    out: Path | None = None,
    json: bool = False,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """The pictures most like a query, as a list and a contact sheet.

    Args:
        run: a finished run, or a file that embed wrote.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        query: a picture file, or a folder or list of them; several as --query A --query B.
        top: how many.
        out: write a contact sheet here (.png or .jpg).
        json: print JSON instead of a table.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_json, print_neighbours
    from headstart.data.decode import SUFFIXES
    from headstart.engine.device import choose
    from headstart.records.outputs import check_output_file, check_own, no_input
    from headstart.use.embeddings import opened
    from headstart.use.search import search as find

    if not query:
        raise InputError("search needs --query PICTURE: a picture file, or a folder or list of them")
    for source in sources:
        if Path(source).suffix.lower() in SUFFIXES and Path(source).is_file():  # `--query A B`
            raise InputError(f"{source} stands as DATA, a single picture; each further query is --query {source}")
    if out is not None:
        check_output_file(out)
        no_input(out, query)
        check_own(out)
    compute = choose(device, threads=threads)
    found = find(opened(run, sources, reading, compute), query, top=top, out=out)
    if json:
        answers = [one.to_dict() for one in found]
        alone = len(query) == 1 and query[0].is_file() and query[0].suffix.lower() in SUFFIXES
        print_json(answers[0]["found"] if alone else answers)
    else:
        print_neighbours(found, out)
    return 0


def select(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    n: Annotated[int, arg(aliases=["-n"])],
    similarity: float | Literal["auto"] = 0.995,
    out: Path = Path("selection"),
    json: bool = False,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """Near-duplicates, outliers, and what to label next, as lists and contact sheets.

    Args:
        run: a finished run, or a file that embed wrote.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        n: how many pictures to label next, and how many outliers to show.
        similarity: cosine similarity from which two pictures are near-duplicates; auto: the one that copies of the
            set's own pictures suggest.
        out: a folder for the lists (.csv) and sheets (.png).
        json: print JSON instead of sentences.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_json, print_selection
    from headstart.engine.device import choose
    from headstart.use.embeddings import opened
    from headstart.use.select import check_place
    from headstart.use.select import select as choose_pictures

    check_place(out)
    compute = choose(device, threads=threads)
    found = choose_pictures(opened(run, sources, reading, compute), n, similarity=similarity, out=out)
    if json:
        print_json(found.to_dict())
    else:
        print_selection(found, out, [str(run), *sources])
    return 0


def map(
    run: RunOrEmbeddings,
    sources: Data = (),
    *,
    out: Path,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """The embedding map as a page, and as tables for other viewers.

    Args:
        run: a finished run, or a file that embed wrote.
        sources: folders of pictures, a list, or a named set. The run's own where left out.
        out: a folder, which gets map.html, map.csv and (with the extra `parquet`) map.parquet.
        device: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart.cli.screen import print_mapped
    from headstart.engine.device import choose
    from headstart.use.embeddings import opened
    from headstart.use.mapped import check_place, write_map

    check_place(out)
    compute = choose(device, threads=threads)
    print_mapped(write_map(opened(run, sources, reading, compute), out))
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
    plugin: Plugins = (),
) -> int:
    """A classifier from few or all labels, beside the network as it was before SimCLR.

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
    from headstart.use.finetune import check_out
    from headstart.use.finetune import finetune as train

    folder, own = _run_and_pictures(run, sources)
    check_out(out, overwrite)
    compute, opened = choose(device, threads=threads), load(folder)
    images = opened.open_images(own, reading)
    found = train(opened, images, out, settings, overwrite=overwrite, compute=compute)
    print_finetuned(found, images.data.sources)
    return 0


def predict(
    run: RunPath,
    sources: Positional[Annotated[tuple[str, ...], arg(metavar="PICTURES...")]],
    *,
    out: Path,
    reading: Reading = DataConfig(),  # noqa: B008 - frozen
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """The class of every picture, its probability, and how unlike the training it is.

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
    license: str | None = None,
    device: str = "auto",
    threads: int | None = None,
    plugin: Plugins = (),
) -> int:
    """The backbone for other tools, and RUN/MODEL_CARD.md; or finetune's classifier.

    Args:
        run: a finished run, or a classifier's folder.
        format: torchvision, timm, onnx or hub.
        out: FILE.safetensors or FILE.pt; FILE.onnx; for hub a folder.
        license: of the weights, as it is to stand in the card; --format hub needs it.
        device: where the features that the file must give are computed: auto, cpu, cuda, cuda:N or mps.
        threads: CPU threads. Unset: one per core.
    """
    from headstart import load
    from headstart.cli.screen import print_exported
    from headstart.engine.device import choose
    from headstart.use.export import export as write

    source = run if (run / "finetune.json").exists() else load(run)
    write(source, format, out, license=license, compute=choose(device, "float32", threads))
    print_exported(source, out, format)
    return 0


def _run_and_pictures(path: Path, sources: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The run, and DATA: a file of embeddings stands for its own where none are given."""
    from headstart.use.embeddings import run_of

    folder, own, _ = run_of(path)
    return folder, sources or own
