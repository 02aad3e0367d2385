"""What a study's data cannot say, in plain sentences.

Comes in: a study's `Records` and its comparisons. Goes out: sentences: one seed, no control, runs that are in no
comparison.
"""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from headstart.records.text import be, number
from headstart.report.comparisons import ENOUGH_CLUSTERS, Comparison, widest
from headstart.report.frame import Records
from headstart.report.labels import (
    head_parts,
    name_of_head,
    named_comparisons,
    stays_frozen,
)
from headstart.report.pairing import settings_of
from headstart.report.verdict import first_run, not_known
from headstart.report.words import too_few


def caveats(study: Records, comparisons: Sequence[Comparison]) -> list[str]:
    """What the data cannot say; nothing where no run was probed."""
    runs = study.runs
    judged = runs[runs["accuracy"].notna()]
    said: list[str] = []
    if judged.empty:
        return said
    if missing := len(study.missing):
        said.append(
            f"{missing} of {len(study.planned)} planned runs {be(missing)} not there yet: this is not the final answer."
        )
    seeds = judged["seed"].nunique()
    if seeds == 1:
        said.append("There is one seed: run-to-run noise is not separated from the differences.")
    heads = set(judged["head"].astype(str))
    frozen = {head_parts(head)[0] for head in heads if stays_frozen(head)}
    if frozen == {"autoencoder"}:
        said.append(
            "No frozen control other than the autoencoder was run, so these data cannot say whether the autoencoder "
            "or the freezing makes the difference."
        )
    elif "autoencoder" in frozen:
        said += _controls(comparisons)
    if judged["untrained"].isna().all():
        said.append(not_known(first_run(study.results)))
    said += _same_pictures(judged)
    said += _averaged_over(judged)
    said += _left_out(study, comparisons)
    if study.probe != "paper":
        said.append(f"Accuracy is the probe {study.probe}; the paper's printed numbers are its own probe's.")
    return said


def _controls(comparisons: Sequence[Comparison]) -> list[str]:
    """Is it the autoencoder, or the freezing? From the heads that stay frozen and are not the autoencoder's."""
    against: Mapping[str, Comparison] = {
        other: c
        for c in widest([c for c in comparisons if c.pairing.factor == "head"])
        for head, other in ((c.pairing.a, c.pairing.b), (c.pairing.b, c.pairing.a))
        if head == "autoencoder-frozen" and _is_plain_control(other)
    }
    if not against:
        return []
    beaten = [
        o for o, c in against.items() if c.verdict == "beats" and (c.decision.test.mean > 0) == (c.pairing.a != o)
    ]
    names = ", ".join(name_of_head(o) for o in against)
    if len(beaten) == len(against):
        text = f"The frozen autoencoder beats every frozen control ({names}): freezing alone does not explain it"
    elif not beaten:
        text = (
            f"The frozen autoencoder is not shown to beat any frozen control ({names}): nothing here says that the "
            "autoencoder's weights, rather than freezing, make the difference"
        )
    else:
        text = (
            f"The frozen autoencoder beats {', '.join(name_of_head(o) for o in beaten)} but is not shown to beat "
            f"{', '.join(name_of_head(o) for o in against if o not in beaten)}: how much of it is the freezing is open"
        )
    few = sorted({c.clusters for c in against.values() if c.decision.test.independent < ENOUGH_CLUSTERS})
    return [text + (f"; {too_few(few)}." if few else ".")]


def _is_plain_control(head: str) -> bool:
    """Whether a frozen head differs from the frozen autoencoder in the init alone."""
    init, variant, frozen = head_parts(head)
    return frozen and not variant and init != "autoencoder"


def _same_pictures(judged: pd.DataFrame) -> list[str]:
    """What the intervals over seeds leave out."""
    sizes = judged.groupby("dataset", observed=True)["n_test"].min().dropna()
    if judged["seed"].nunique() == 1 or sizes.empty:
        return []
    counts = ", ".join(f"{n:,.0f}" if len(sizes) == 1 else f"{dataset} {n:,.0f}" for dataset, n in sizes.items())
    return [
        f"All runs are judged on the same test pictures ({counts}): the intervals are about other seeds, not about "
        "other pictures."
    ]


def _averaged_over(judged: pd.DataFrame) -> Iterator[str]:
    """What means are over besides heads, and what they are not."""
    if judged["normalized"].nunique() > 1:
        yield (
            "Means by head, and the paper's Tables 2, 4, 5 and 6, are over runs with and without Z-score "
            "normalization, as the paper's are; Table 3 and the comparisons hold them apart."
        )
    for name in settings_of(judged):
        yield (
            f"Runs differ in {name}: each value stands as a data set of its own, and nothing but the comparisons of "
            "matched runs spans them."
        )


def _left_out(study: Records, comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Runs that no sentence speaks of, and comparisons that study.yaml names in vain."""
    runs = study.runs
    judged = runs[runs["accuracy"].notna()]
    if without := len(runs) - len(judged):
        yield f"{without} of {number(len(runs), 'run')} {be(without)} without the probe and in no comparison."
    if failed := len(study.failed):
        yield f"{number(failed, 'run')} failed and {be(failed)} in no comparison."
    for dataset, part in judged.groupby("dataset", observed=True):
        if (versions := part["pictures"].nunique()) > 1:
            yield (
                f"{dataset} changed: its runs saw {versions} different sets of pictures, and only runs on the same are "
                "compared."
            )
    matched = {int(i) for c in comparisons for i in (*c.pairing.first, *c.pairing.second)}
    if comparisons and (alone := len(judged) - len(matched & set(judged.index))):
        yield (
            f"{alone} of {number(len(judged), 'probed run')} {be(alone)} in no comparison: no other run differs from "
            f"{'it' if alone == 1 else 'them'} in one thing alone (precision and every other setting count)."
        )
    compared = {frozenset((c.pairing.a, c.pairing.b)) for c in comparisons}
    for pair in named_comparisons(study.settings.get("compare") or ()):
        if isinstance(pair, frozenset) and pair not in compared:
            yield f"study.yaml names {' against '.join(sorted(pair))}, which no two matched runs allow."
