"""What a study's autoencoders reconstruct, by all but their seed, and in a sentence where there is nothing else.

Comes in: `Records.autoencoders`. Goes out: `Group`s, and a headline. The error of Z-scored pictures is in
other units than that of plain ones, so that the two are never put in one order.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from headstart.records.text import number
from headstart.report.frame import Records
from headstart.report.words import listed

MOST_TOLD = 3
"""Groups that a headline tells one by one; of more it names the best."""


@dataclass(frozen=True)
class Group:
    """Autoencoders that differ in their seed alone."""

    dataset: str
    kind: str
    normalized: bool
    size: int
    seeds: list[str]
    errors: list[float]

    @property
    def mean(self) -> float:
        """Of the errors."""
        return sum(self.errors) / len(self.errors)

    @property
    def over(self) -> str:
        """How many seeds, or which."""
        return f"{len(self.seeds)} seeds" if len(self.seeds) > 1 else f"seed {self.seeds[0]}"

    @property
    def span(self) -> str:
        """The lowest error and the highest."""
        low, high = min(self.errors), max(self.errors)
        return f"{low:.5f}" + (f" to {high:.5f}" if len(self.errors) > 1 else "")

    def told(self, kinds: bool) -> str:
        """kinds: whether there are several, so that it has to be said."""
        of_kind = f" of kind {self.kind}" if kinds else ""
        return f"{self.span} on {self.dataset} with an embedding of {self.size}{of_kind} ({self.over})"


def groups(rows: pd.DataFrame) -> Iterator[Group]:
    """`Records.autoencoders` that were tested, by all but their seed."""
    tested = rows[rows["test_mse"].notna()]
    for (dataset, kind, normalized, size), own in tested.groupby(["dataset", "kind", "normalized", "hidden_dim"]):
        seeds, errors = own["seed"].astype(str).tolist(), own["test_mse"].astype(float).tolist()
        yield Group(dataset, kind, bool(normalized), size, seeds, errors)


def headline(study: Records) -> str:
    """What a study of autoencoders alone found: of several seeds the lowest error and the highest."""
    rows, found = study.autoencoders, list(groups(study.autoencoders))
    count = f"{number(len(rows), 'autoencoder')} and no backbone"
    if not found:
        return f"{count}."
    kinds = rows["kind"].nunique() > 1
    if len(found) <= MOST_TOLD:
        return f"{count}: test MSE {listed([group.told(kinds) for group in found])}."
    comparable: dict[tuple[str, bool], list[Group]] = {}
    for group in found:
        comparable.setdefault((group.dataset, group.normalized), []).append(group)
    best = [min(same, key=lambda group: group.mean) for same in comparable.values()]
    return f"{count}: the lowest test MSE is {listed([group.told(kinds) for group in best])}."
