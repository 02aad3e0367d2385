"""Ranks of levels across data sets: which one is better on most of them, and whether that could be chance.

Comes in: rows with the data sets they were judged on. Goes out: `Ranking`: mean ranks, the test of Friedman in the form
of Iman and Davenport, and Nemenyi's critical difference, or with a baseline Holm's correction (Demsar 2006).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from headstart.records.text import first_few, printable
from headstart.report.comparisons import ALPHA, ENOUGH_CLUSTERS, Measure
from headstart.report.words import listed
from headstart.statistics import critical_difference, friedman, holm, iman_davenport, rank_p_values, wilcoxon

COLUMNS = ["metric", "level", "mean rank", "sets", "critical difference", "friedman p", "iman-davenport p", "p_holm"]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The ranks of a metric's levels over the data sets that have all of them; 1 is best.

    Attributes:
        metric: which.
        about: what stands behind `ranks`: ` in val_loss`; empty where a share is the only metric.
        ranks: mean rank by level, best first.
        sets: how many data sets.
        left: data sets that lack a level and are not ranked.
        p: of the hypothesis that no level differs: by Iman and Davenport, for two levels by Wilcoxon.
        friedman: p of the chi-squared form; nan for two levels.
        difference: how far two mean ranks must lie apart (Nemenyi); nan for two levels.
        baseline: the level that the others are compared with, if any.
        against: p of each level against the baseline, corrected by Holm's method; nan where there is none.
    """

    metric: str
    about: str
    ranks: pd.Series
    sets: int
    left: list[str]
    p: float
    friedman: float
    difference: float
    baseline: str | None
    against: pd.Series

    @property
    def table(self) -> pd.DataFrame:
        """A row a level."""
        return pd.DataFrame(
            {
                "metric": self.metric,
                "level": self.ranks.index.astype(str),
                "mean rank": self.ranks.to_numpy(),
                "sets": self.sets,
                "critical difference": self.difference,
                "friedman p": self.friedman if len(self.ranks) > 2 else self.p,
                "iman-davenport p": self.p if len(self.ranks) > 2 else np.nan,
                "p_holm": self.against.to_numpy(),
            }
        )[COLUMNS]

    @property
    def groups(self) -> list[list[str]]:
        """Runs of levels, best first, that lie within the critical difference of each other; the longest ones."""
        ranks = self.ranks.to_numpy()
        ends = np.searchsorted(ranks, ranks + self.difference, side="left")
        spans = [(i, int(end)) for i, end in enumerate(ends) if end - i > 1 and (i == 0 or end > ends[i - 1])]
        return [[str(level) for level in self.ranks.index[start:end]] for start, end in spans]

    @property
    def sentences(self) -> list[str]:
        """What the ranks say, and what they do not."""
        levels = len(self.ranks)
        each = listed([f"{level} {rank:.2f}" for level, rank in self.ranks.items()])
        test = "Friedman's test as Iman and Davenport have it" if levels > 2 else "Wilcoxon's signed-rank test"
        differ = self.p <= ALPHA
        said = f"Mean ranks{self.about} over {self.sets} data sets (1 is best): {each}; " + (
            f"they differ ({test}, {p_words(self.p)})"
            if differ
            else f"no difference is detectable ({test}, {p_words(self.p)})"
        )
        few = self.sets < ENOUGH_CLUSTERS
        found = [printable(said + (f"; {self.sets} data sets are too few to settle it." if few else "."))]
        if differ and levels > 2:
            found.append(printable(self._apart()))
        if self.left:
            found.append(printable(f"Not ranked, for they lack a level{self.about}: {first_few(self.left, 5)}."))
        return found

    def _apart(self) -> str:
        if self.baseline is not None:
            known = self.against.dropna()
            each = listed([f"{level} ({p_words(p)})" for level, p in known.items()])
            return f"Ranks against {self.baseline}, corrected by Holm's method for {len(known)} comparisons: {each}."
        groups = "; ".join(listed(group) for group in self.groups)
        end = f": not told apart are {groups}" if groups else ", and all do"
        return f"Two levels differ where their mean ranks lie at least {self.difference:.2f} apart (Nemenyi){end}."


def p_words(p: float) -> str:
    """`p = 0.031`, `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def ranking(table: pd.DataFrame, measure: Measure, dataset: str, by: str, baseline: str | None) -> Ranking | None:
    """Mean ranks over the data sets on which all levels were run; None for fewer than two sets or levels.

    A level's number on a set is the mean of its rows there.
    """
    known = table[table[measure.name].notna()]
    every = known.pivot_table(index=dataset, columns=by, values=measure.name, observed=True)
    wide = every.dropna()
    sets, levels = wide.shape
    if sets < 2 or levels < 2:
        return None
    ranks = wide.rank(axis=1, ascending=not measure.higher).mean().sort_values(kind="stable")
    ranks.index = ranks.index.astype(str)
    against = pd.Series(np.nan, index=ranks.index)
    if levels > 2 and baseline in ranks.index:
        others = [level for level in ranks.index if level != baseline]
        against[others] = holm(rank_p_values(ranks[others].to_numpy() - ranks[baseline], levels, sets))
    values = wide.to_numpy()
    return Ranking(
        metric=measure.name,
        about=measure.about,
        ranks=ranks,
        sets=sets,
        left=[str(name) for name in every.index.difference(wide.index)],
        p=iman_davenport(values) if levels > 2 else wilcoxon(values[:, 0] - values[:, 1]),
        friedman=friedman(values) if levels > 2 else float("nan"),
        difference=critical_difference(levels, sets) if levels > 2 else float("nan"),
        baseline=baseline,
        against=against,
    )
