"""`headstart compare`: which difference is real, for anybody's runs."""

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from headstart.records.errors import InputError


def compare(
    files: Positional[Annotated[tuple[Path, ...], arg(metavar="FILE...")]],
    *,
    metric: tuple[str, ...],
    by: str,
    pair: tuple[str, ...] | None = None,
    seed: str | None = None,
    cluster: str | None = None,
    baseline: str | None = None,
    higher: bool = False,
    lower: bool = False,
    out: Path | None = None,
    json: bool = False,
) -> int:
    """Which difference is real: matched pairs of anybody's runs, p-values corrected.

    Args:
        files: CSV, TSV, parquet, JSON, JSON lines, an MLflow store, W&B and TensorBoard exports, study folders.
        metric: the column that is judged, or several.
        by: the column whose values are compared.
        pair: columns in which matched rows agree. Unset: all that are no outcomes, no names of runs, not bound to --by.
        seed: the column of seeds. Unset: by its usual names.
        cluster: a column; rows that share its value are one piece of evidence.
        baseline: compare every value of --by with this one alone.
        higher: more is better. Unset: by the metric's name.
        lower: less is better.
        out: write the page, tables and figures here.
        json: print JSON instead of sentences.
    """
    from headstart.cli.screen import print_compared, print_json
    from headstart.report.anybodys import read_tables
    from headstart.report.compare import compare as find
    from headstart.report.compare_page import check_place, write_comparison

    if higher and lower:
        raise InputError("--higher and --lower exclude each other")
    if out is not None:
        check_place(out, files)
    found = find(
        read_tables(files),
        metric=metric,
        by=by,
        pair=pair,
        seed=seed,
        cluster=cluster,
        baseline=baseline,
        higher=True if higher else False if lower else None,
    )
    page = None if out is None else write_comparison(found, out)
    if json:
        print_json(found.to_dict())
    else:
        print_compared(found, page)
    return 0
