"""From finished runs to a page: the paper's tables, matched comparisons, figures (paper section 4).

Comes in: the folder of a run or a study. Goes out, in that folder: report.html, tables/table2.csv ... table6.csv with
their Markdown and LaTeX, the answer in words (tables/answer.md) and in numbers (comparisons.csv), `figures/*.svg`
with their data. Nothing here imports torch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.records.errors import InputError, RunError
from headstart.records.folder import RunFolder
from headstart.records.outputs import kind_of
from headstart.records.text import visible
from headstart.records.together import write_together

if TYPE_CHECKING:
    from headstart.report.frame import Records


@dataclass(frozen=True, kw_only=True)
class Written:
    """A report on disk: its page, and the sentences that a reader should see at once."""

    page: Path
    first: list[str]


def write_report(path: str | Path, probe: str | None = None) -> Path:
    """Write the report of a run or study folder and return the page's path.

    `probe` chooses the accuracy; unset, the one that study.yaml says `decides`, else `linear`, but `paper` in the
    paper's own study. Raises InputError when the folder holds no finished run, a file in it is damaged, or no run has
    the probe.
    """
    return written(path, probe).page


def written(path: str | Path, probe: str | None = None) -> Written:
    """`write_report`, and what the page says first: a study's warnings and its headline."""
    from headstart.report import frame  # noqa: PLC0415 - so headstart imports fast

    folder = RunFolder(path)
    if kind_of(folder.path) in ("run", "classifier") and not folder.is_complete():
        folder.read_result()  # which says what is there in its place
    study = frame.read(path, probe)
    try:
        return write(study)
    except OSError as error:
        raise RunError(f"the report of {study.path} could not be written: {error.strerror or error}") from error


def write(study: "Records") -> Written:
    """The files of the report of what was read; tables and figures of an earlier one that it has not go."""
    from headstart.report import answer, figures, frame, html, run_page, study_page, tables  # noqa: PLC0415
    from headstart.report.comparisons import table_of  # noqa: PLC0415

    for name in ("tables", "figures"):
        if (study.path / name).is_symlink():
            raise InputError(
                f"{study.path / name} is a link to another folder; remove it, and the report makes its own"
            )
    tidy = tables.tidy(study.runs)
    texts: dict[str, str] = {}
    if study.single:
        page = run_page.page(study)
        first = [page.headline]
    else:
        found = answer.answer(study)
        printed = tables.tidy(study.runs[study.runs["set"].isin(frame.PAPER_SETS)])
        shown = [tables.layout(number, table) for number, table in printed.items()]
        page = study_page.page(study, found, shown, tables.headline(printed[2]))
        first = [said for said in (study.unplanned, found.worse, *found.worse_too, found.headline) if said]
        texts["tables/answer.md"] = tables.sentences(found)
        texts["comparisons.csv"] = tables.as_csv(table_of(found.comparisons))
        texts["runs.csv"] = tables.as_csv(study.runs)
    for number, table in tidy.items() if len(study.runs) else ():
        layout, stem = tables.layout(number, table), f"tables/table{number}"
        texts |= {f"{stem}.csv": tables.as_csv(table), f"{stem}.md": tables.markdown(layout)}
        texts[f"{stem}.tex"] = tables.latex(layout)
    for figure in page.figures:
        texts |= figure.files()
    texts["report.html"] = html.render(page)
    earlier = [f"tables/table{number}.{ending}" for number in tidy for ending in ("csv", "md", "tex")]
    contents = {name: visible(text) for name, text in texts.items()}
    write_together(study.path, "report", contents, [*earlier, *figures.drawn_before(study.path)], make=False)
    return Written(page=study.path / "report.html", first=first)
