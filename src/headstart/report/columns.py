"""What the columns of somebody's table are: found by their usual names and by what they hold, and said.

Comes in: a table of runs, and what its user says of it. Goes out: `Roles`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from headstart.records.errors import InputError
from headstart.records.text import first_few, printable
from headstart.report.delimited import OUTCOMES, PLACE, plain_names, spelt

SEEDS = ("seed", "random_seed", "rng_seed", "repeat", "replicate", "trial", "fold", "config.seed")
SETS = ("dataset", "dataset_name", "data_set", "data set", "data", "task", "benchmark", "environment", "env")
CLUSTERS = ("cluster", "autoencoder", "projection_head_weights", "pretrained", "checkpoint", "init_from")
IDENTITY = re.compile(
    r"(run|run[ _]?(id|uuid|name)|id|uuid|name|display[ _]?name|job[ _]?(id|name|type)|user(name)?|host(name)?|status|"
    r"state|notes|description|tags(\..*)?|(created|updated|heartbeat)([ _]?at)?|(start|end)[ _]?time|date|_?timestamp|"
    r"duration|_?runtime|_?step|git.*|commit|log_dir|sweep|agent|os|python|entity|project|source[ _](name|type)|"
    r".*_ckpt|.*_dir|.*path|.*[ _]uri|experiment_id|devices?|(n_?|num_?)?gpus?([ _](count|type))?|num_workers|nodes?|"
    r"accelerator)",
    re.IGNORECASE,
)
OUTCOME = re.compile(
    r"((train|val|valid|validation|test|eval)[ _/.-].*)?(loss|.*acc(uracy)?|.*f1(score)?|.*precision|.*recall|auc|"
    r"auroc|m?ap|mse|rmse|mae|errors?|brier|ece|nll|cross[ _-]?entropy|score|perplexity|ppl|bleu|"
    r"fid|iou|dice|r2|seconds|(wall)?time|latency|throughput|memory)"
    r"(@\d+|[ _]?\(.*\)|_?mean|_?std)?",
    re.IGNORECASE,
)
LOWER = re.compile(
    r"(?<![a-z])(train|val|valid|validation|test|eval|dev)?(loss(es)?|errors?|err|[rnms]*mse|s?mape|n?mae|mase|"
    r"cross[ _-]?entropy|[bem]?ce|nll|kl([ _-]?div(ergence)?)?|brier|perplexity|ppl|bits?[ _-]?per[ _-]?\w+|bp[bcd]|"
    r"[fk]id|lpips|f[pn]r|eer|false[ _-]?(positives?|negatives?|alarms?)|regret|cost|(run|wall|cpu|gpu|elapsed)?[ _-]?"
    r"(clock)?[ _-]?time|wall[ _-]?clock|seconds|duration|latency|memory|energy|flops|rank|[wct]er)(?![a-z])",
    re.IGNORECASE,
)
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
SHARED = 0.2
"""Part of a column's values that stand in several levels from which on it is a setting; outcomes hardly repeat."""


@dataclass(frozen=True, kw_only=True)
class Roles:
    """What the columns are.

    Attributes:
        metrics: what is judged.
        by: what is compared.
        pair: columns in which two rows of a pair agree.
        seed, dataset, cluster, n_test: columns, where there are.
        left: column -> why it is not matched on; those that are the same everywhere are in no role.
    """

    metrics: tuple[str, ...]
    by: str
    pair: tuple[str, ...]
    seed: str | None
    dataset: str | None
    cluster: str | None
    n_test: str | None
    left: dict[str, str]

    @property
    def sentence(self) -> str:
        """Which columns were taken for what."""
        parts = [f"compared by {self.by}"]
        roles = (("seeds", self.seed), ("data sets", self.dataset), ("clusters", self.cluster))
        parts += [f"{word} in {name}" for word, name in roles if name]
        rest = [name for name in self.pair if name not in (self.seed, self.dataset)]
        parts.append(f"matched on {', '.join(rest)}" if rest else "nothing else to match on")
        for why in dict.fromkeys(self.left.values()):
            parts.append(
                f"not matched on {first_few([n for n, reason in self.left.items() if reason == why], 5)} ({why})"
            )
        return printable("Columns: " + "; ".join(parts) + ".")


def lower_is_better(metric: str) -> bool:
    """Whether a metric of that name is better where it is lower."""
    return LOWER.search(CAMEL.sub("_", metric)) is not None


def find(
    table: pd.DataFrame,
    metrics: Sequence[str],
    by: str,
    pair: Sequence[str] | None = None,
    seed: str | None = None,
    cluster: str | None = None,
) -> Roles:
    """Roles of all columns. Raises InputError naming a column that is not there, and what there is."""
    columns = [str(name) for name in table.columns if name != PLACE]

    def there(name: str) -> str:
        return _there(table, columns, name)

    by, metrics = there(by), tuple(dict.fromkeys(there(name) for name in metrics))
    pair = None if pair is None else [there(name) for name in pair]
    seed = there(seed) if seed else _usual(columns, SEEDS, by)
    dataset = _usual(columns, SETS, by)
    cluster = there(cluster) if cluster else _usual(columns, CLUSTERS, by)
    _apart(metrics, by, pair, seed, cluster)
    known = {*metrics, by, cluster, "n_test"}
    left: dict[str, str] = {}
    keys = list(pair) if pair is not None else []
    for name in columns if pair is None else ():
        if name in known or table[name].nunique(dropna=False) == 1:
            continue
        why = None if name in (seed, dataset) else _not_matched_on(table, name, by)
        if why:
            left[name] = why
        else:
            keys.append(name)
    keys += [name for name in (seed, dataset) if name and name not in keys]
    n_test = "n_test" if "n_test" in columns else None
    return Roles(
        metrics=metrics,
        by=by,
        pair=tuple(keys),
        seed=seed,
        dataset=dataset,
        cluster=cluster,
        n_test=n_test,
        left=left,
    )


def _there(table: pd.DataFrame, columns: Sequence[str], name: str) -> str:
    """A column by its name, or by the name that a tracker's file has for it: `metrics.accuracy`."""
    if name in columns:
        return name
    plain = plain_names([name])[name]
    if plain in columns:
        return plain
    where = files_of(table)
    where = f"{where}, row 1: " if where else ""
    raise InputError(f"{where}there is no column {printable(name)!r}; the table has {printable(', '.join(columns))}")


def files_of(table: pd.DataFrame) -> str:
    """The files that a table's rows come from: the first few; empty for a frame."""
    files = [file for file in dict.fromkeys(str(place).rpartition(", ")[0] for place in table[PLACE]) if file]
    return printable(first_few(files))


def _apart(metrics: Sequence[str], by: str, pair: Sequence[str] | None, seed: str | None, cluster: str | None) -> None:
    """Refuse one column in two roles that exclude each other."""
    roles = [("--metric", name) for name in metrics] + [("--pair", name) for name in pair or ()]
    roles += [(option, name) for option, name in (("--seed", seed), ("--cluster", cluster)) if name]
    for option, name in roles:
        if name == by:
            raise InputError(f"{printable(name)} is compared (--by) and cannot be {option} as well")
        if option != "--metric" and name in metrics:
            raise InputError(f"{printable(name)} is judged (--metric) and cannot be {option} as well")


def _usual(columns: Sequence[str], names: Sequence[str], by: str) -> str | None:
    lowered = {name.lower(): name for name in reversed(columns)}
    return next((lowered[name] for name in names if name in lowered and lowered[name] != by), None)


def _not_matched_on(table: pd.DataFrame, name: str, by: str) -> str | None:
    """Why two rows of a pair need not agree in a column; None where they must."""
    values = table[name]
    is_text = not pd.api.types.is_numeric_dtype(values)
    distinct = values.nunique(dropna=False)
    if IDENTITY.fullmatch(name) or (is_text and distinct == len(table) > 3):
        return "the name of a run"
    if not is_text and (OUTCOME.fullmatch(CAMEL.sub("_", name)) or name in table.attrs.get(OUTCOMES, ())):
        return "an outcome"
    seen = pd.DataFrame({"value": spelt(values), "level": spelt(table[by])}).drop_duplicates()
    shared = float((seen["value"].value_counts() > 1).mean())
    if pd.api.types.is_float_dtype(values) and len(table) > 7 and distinct > len(table) / 2 and shared < SHARED:
        return "an outcome, for its values hardly repeat"
    return None if shared else f"different wherever {by} is"
