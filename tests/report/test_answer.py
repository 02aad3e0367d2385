"""Matched runs: what is paired, what is decided, what is said, and how often it is wrong."""

import json
import shutil
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from headstart.records.errors import InputError
from headstart.report import answer, comparisons, figures, frame, pairing
from headstart.report.matching import Pairing

HEADS = ("autoencoder-frozen", "random-trainable", "orthogonal-frozen", "shuffled-frozen")
FAMILY = [["ae", "mlp"], ["ae", "orthogonal-frozen"], ["ae", "shuffled-frozen"]]


def _runs(seeds: int, sizes: tuple[int, ...], nested: bool, sets: tuple[str, ...] = ("digits",)) -> pd.DataFrame:
    """The frame that frame.read makes, without accuracies worth the name."""
    rows = [
        {
            "dataset": d,
            "head": h,
            "init": h.rpartition("-")[0],
            "activation": a,
            "hidden_dim": s,
            "output_dim": 32,
            "normalized": True,
            "seed": k,
            "pictures": "",
            "settings": "x",
            "set": d,
            "accuracy": 0.5,
            "autoencoder": f"{d} h{s} seed {k}" if nested else f"{d} h{s}",
        }
        for d, h, s, k, a in product(sets, HEADS, sizes, range(seeds), ("ReLU", "Tanh"))
    ]
    runs = pd.DataFrame(rows)
    return runs.assign(head=pd.Categorical(runs["head"], HEADS), activation=pd.Categorical(runs["activation"]))


def _noise(
    runs: pd.DataFrame, rng: np.random.Generator, seed: float, autoencoder: float, draws: int
) -> Iterator[np.ndarray]:
    """Accuracies with noise that runs of a head share with their seed, or autoencoder, and noise of their own."""
    columns = (["head", "dataset", "seed"], seed), (["head", "autoencoder"], autoencoder)
    groups = [(runs.groupby(by, observed=True).ngroup().to_numpy(), size) for by, size in columns]
    for _ in range(draws):
        shared = sum(size * rng.normal(size=group.max() + 1)[group] for group, size in groups)
        yield 0.5 + shared + 0.01 * rng.normal(size=len(runs))


SCENARIOS = {
    "an autoencoder a seed": (_runs(5, (128, 256, 512), nested=True), 0.02, 0.02),
    "shared autoencoders": (_runs(6, (128, 256, 512), nested=False), 0.02, 0.02),
    "only seeds matter": (_runs(8, (128, 256), nested=False), 0.03, 0.0),
    "only autoencoders matter": (_runs(4, (64, 128, 256, 512), nested=False), 0.0, 0.03),
    "one seed, several autoencoders": (_runs(1, (64, 128, 256, 512, 1024), nested=True), 0.0, 0.03),
    "several sets": (_runs(3, (128, 256), nested=True, sets=("a", "b")), 0.02, 0.02),
}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_false_beats_where_nothing_differs(scenario: str) -> None:
    runs, seed, autoencoder = SCENARIOS[scenario]
    rng = np.random.default_rng(20240601)
    pairings = [p for p in pairing.pair(runs, FAMILY) if p.family == "named" and _top(p, runs)]
    assert len(pairings) == 3
    wrong = 0
    for accuracy in _noise(runs, rng, seed, autoencoder, draws=1000):
        decisions = comparisons.decide(pairings, accuracy)
        wrong += any(d.verdict == "beats" for d in decisions)
    assert wrong <= 65


def _top(pairs: Pairing, runs: pd.DataFrame) -> bool:
    return (pairs.dataset is None) == (runs["dataset"].nunique() > 1)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_intervals_cover_a_true_difference(scenario: str) -> None:
    runs, seed, autoencoder = SCENARIOS[scenario]
    rng = np.random.default_rng(20240602)
    (one,) = [p for p in pairing.pair(runs, FAMILY[:1]) if p.family == "named" and _top(p, runs)]
    shift = 0.03 * (runs["head"] == "autoencoder-frozen").to_numpy()
    covered = 0
    for accuracy in _noise(runs, rng, seed, autoencoder, draws=600):
        (decision,) = comparisons.decide([one], accuracy + shift)
        low, high = decision.test.interval
        covered += low <= 3.0 <= high
    assert covered / 600 >= 0.93


def test_a_true_difference_is_found() -> None:
    runs, seed, autoencoder = SCENARIOS["an autoencoder a seed"]
    rng = np.random.default_rng(3)
    pairings = [p for p in pairing.pair(runs, FAMILY) if p.family == "named"]
    shift = 0.12 * (runs["head"] == "autoencoder-frozen").to_numpy()
    verdicts = [
        decision.verdict
        for accuracy in _noise(runs, rng, seed, autoencoder, draws=50)
        for decision in comparisons.decide(pairings, accuracy + shift)
    ]
    assert verdicts.count("beats") / len(verdicts) > 0.8


def test_accuracies_that_come_in_steps_never_look_certain() -> None:
    runs = _runs(2, (128,), nested=True)
    accuracy = np.where(runs["head"] == "autoencoder-frozen", 0.51, 0.50)  # one of 100 pictures more, in both seeds
    pairings = [p for p in pairing.pair(runs, FAMILY[:1]) if p.family == "named"]
    (coarse,) = comparisons.decide(pairings, accuracy, np.full(len(runs), 100.0))
    assert coarse.verdict == "none"


# -------------------------------------------------------------------------------------------------------- the authors'


@pytest.fixture(scope="module")
def said(authors: Path) -> answer.Answer:
    return answer.answer(frame.read(authors))


def _of(said: answer.Answer, a: str, b: str, dataset: str | None) -> comparisons.Comparison:
    (found,) = [c for c in said.comparisons if (c.pairing.a, c.pairing.b, c.pairing.dataset) == (a, b, dataset)]
    return found


def test_matched_pairs_are_those_of_plain_pandas(said: answer.Answer, reference: Path) -> None:
    frames = [pd.read_csv(reference / f"simclr-eval{s}.csv", decimal=",") for s in ("", "-ae-nonfrozen")]
    e = pd.concat(frames)
    e["head"] = e["projection_head"] + e["freeze_projection_head"].astype(str)
    keys = [
        "dataset_name",
        "projection_head_activation",
        "projection_head_embedding_dim",
        "latent_dimensions",
        "standardize",
    ]
    wide = 100 * e.pivot(index=keys, columns="head", values="test_micro_MulticlassAccuracy")
    for a, b, one, two in (
        ("autoencoder-frozen", "random-trainable", "aeTrue", "mlpFalse"),
        ("autoencoder-frozen", "autoencoder-trainable", "aeTrue", "aeFalse"),
        ("autoencoder-trainable", "random-trainable", "aeFalse", "mlpFalse"),
    ):
        d = (wide[one] - wide[two]).dropna()
        found = _of(said, a, b, None)
        assert (found.pairs, found.wins, found.losses) == (len(d), (d > 0).sum(), (d < 0).sum())
        assert (found.mean, found.median) == pytest.approx((d.mean(), d.median()))
        rounded = d.round(4)
        assert found.wilcoxon == pytest.approx(stats.wilcoxon(rounded[rounded != 0]).pvalue)
        means = d.groupby(["dataset_name", "projection_head_embedding_dim"]).mean()
        expected = stats.t.interval(0.95, len(means) - 1, means.mean(), stats.sem(means))
        assert found.decision.test.interval == pytest.approx(expected)
        low, high = found.mean_interval
        assert low < found.mean < high


def test_the_design_s_check_values(said: answer.Answer) -> None:
    frozen = _of(said, "autoencoder-frozen", "autoencoder-trainable", None)
    trainable = _of(said, "autoencoder-trainable", "random-trainable", None)
    assert (frozen.wins, frozen.pairs, round(frozen.median, 1)) == (30, 45, 1.1)
    assert (trainable.wins, trainable.pairs, round(trainable.median, 2)) == (23, 45, 0.15)


def test_the_authors_data_in_plain_sentences(said: answer.Answer) -> None:
    assert said.headline == (
        "Frozen autoencoder beats trainable random by 2.8 points (1.4 to 4.2 over 15 autoencoders; 282 of 360 pairs)."
    )
    assert said.sentences == [
        "No difference is detectable between frozen autoencoder and trainable autoencoder (−0.4 to 3.1 over 15 "
        "autoencoders; frozen autoencoder ahead in 30 of 45 pairs)."
    ]
    assert _of(said, "autoencoder-frozen", "random-trainable", "CIFAR10").sentence == (
        "Frozen autoencoder beats trainable random on CIFAR10 by 3.4 points (1.4 to 5.3 over 3 autoencoders; 60 of 72 "
        "pairs); 3 autoencoders are too few to settle it."
    )
    assert said.by_set[0] == (
        "Set by set, frozen autoencoder beats trainable random on CIFAR10 (3.4 points) and FGVCAircraft (1.0 points); "
        "no difference is detectable on Imagenette, STL10 and CIFAR100. 3 autoencoders a set are too few to settle it."
    )
    caveats = " ".join(said.caveats)
    assert "There is one seed: run-to-run noise is not separated" in caveats
    assert "No frozen control other than the autoencoder was run" in caveats


def test_many_sets_are_counted_not_listed(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for i, seed in product(range(9), range(2)):
        gain = 0.1 if i < 7 else 0.0
        for init, frozen, accuracy in (("autoencoder", True, 0.6 + gain + 0.01 * seed), ("random", False, 0.6)):
            make_run(
                tmp_path / "runs" / f"{i} {seed} {init}",
                init=init,
                frozen=frozen,
                seed=seed,
                set_name=f"s{i}",
                accuracy=accuracy,
            )
    (said,) = answer.answer(frame.read(tmp_path)).by_set
    assert said == (
        "Set by set, frozen autoencoder beats trainable random on s0 (10.5 points), s1 (10.5 points), s2 (10.5 "
        "points), s3 (10.5 points), s4 (10.5 points) and 2 more; no difference is detectable on s7 and s8. "
        "2 seeds a set are too few to settle it."
    )
    for run in (tmp_path / "runs").glob("* 1 *"):
        shutil.rmtree(run)
    (said,) = answer.answer(frame.read(tmp_path)).by_set
    assert said == (
        "Set by set, between frozen autoencoder and trainable random no difference is detectable on any of 9 sets. "
        "1 autoencoder a set is too few to settle it."
    )


def test_holm_runs_within_a_family_and_scope(said: answer.Answer) -> None:
    named = [c for c in said.comparisons if c.pairing.family == "named" and c.pairing.dataset == "CIFAR10"]
    assert [c.decision.family_size for c in named] == [2, 2]
    smaller = min(named, key=lambda c: c.decision.test.p)
    assert smaller.decision.adjusted == pytest.approx(2 * smaller.decision.test.p)


# ------------------------------------------------------------------------------------------------------ small studies


def test_two_runs_of_one_seed_settle_nothing(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "ae", accuracy=0.80)
    make_run(tmp_path / "runs" / "mlp", init="random", frozen=False, accuracy=0.75)
    found = answer.answer(frame.read(tmp_path))
    assert found.headline == (
        "Frozen autoencoder is ahead of trainable random by 5.0 points in one pair of runs; one seed and one "
        "autoencoder cannot settle it."
    )
    (comparison,) = found.comparisons
    assert comparison.verdict == "open"
    assert np.isnan(comparison.decision.test.interval).all()


def _study(
    make_run: Callable[..., Path], tmp_path: Path, heads: dict[tuple[str, bool], float], seeds: int
) -> answer.Answer:
    rng = np.random.default_rng(11)
    for (init, frozen), accuracy in heads.items():
        for seed in range(seeds):
            name = f"{init}-{frozen}-{seed}"
            make_run(
                tmp_path / "runs" / name,
                init=init,
                frozen=frozen,
                seed=seed,
                accuracy=accuracy + 0.01 * rng.integers(-1, 2),
            )
    return answer.answer(frame.read(tmp_path))


def test_frozen_controls_answer_the_question(make_run: Callable[..., Path], tmp_path: Path) -> None:
    heads = {("autoencoder", True): 0.9, ("random", False): 0.7, ("orthogonal", True): 0.9, ("random", True): 0.6}
    found = _study(make_run, tmp_path, heads, seeds=6)
    assert found.headline.startswith("Frozen autoencoder beats trainable random by ")
    assert "over 6 seeds; 6 of 6 pairs)" in found.headline
    assert "too few" not in found.headline
    text = " ".join(found.caveats)
    assert "beats frozen random but is not shown to beat frozen orthogonal" in text
    assert "one seed" not in text


def test_another_autoencoder_or_schedule_makes_another_head(make_run: Callable[..., Path], tmp_path: Path) -> None:
    changes = {
        "plain": ("", ""),
        "features": ("'on': pixels", "'on': features"),
        "released": ("unfreeze_at: null", "unfreeze_at: 0.5"),
    }
    for (name, change), seed in product(changes.items(), range(5)):
        run = make_run(tmp_path / "runs" / f"{name}{seed}", seed=seed, accuracy=0.9 if name == "features" else 0.8)
        (run / "config.yaml").write_text((run / "config.yaml").read_text().replace(*change))
    named = ["autoencoder (features)-frozen", "autoencoder-frozen"]
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"compare": [named]}))
    found = answer.answer(frame.read(tmp_path))
    assert found.headline.startswith(
        "Frozen autoencoder (features) is ahead of frozen autoencoder by 10.0 points"
    ) or found.headline.startswith("Frozen autoencoder (features) beats frozen autoencoder by 10.0 points")
    heads = {(c.pairing.a, c.pairing.b): len(c.pairing.first) for c in found.comparisons}
    assert heads == dict.fromkeys(
        [
            tuple(named),
            ("autoencoder (released at 0.5)-frozen", "autoencoder-frozen"),
            ("autoencoder (features)-frozen", "autoencoder (released at 0.5)-frozen"),
        ],
        5,
    )
    assert "No frozen control other than the autoencoder" in " ".join(found.caveats)
    assert len({figures.look(head) for two in heads for head in two}) == 3


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (
            ["first/autoencoder.safetensors", "second/autoencoder.safetensors"],
            ["first/autoencoder", "second/autoencoder"],
        ),
        (["runs/wide.safetensors", "runs/deep.safetensors"], ["wide", "deep"]),
        (["runs/v1.0", "runs/v1.1"], ["v1.0", "v1.1"]),
    ],
)
def test_autoencoders_given_by_file_are_told_apart(
    files: list[str], told: list[str], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    for (place, file), seed in product(enumerate(files), range(2)):
        run = make_run(tmp_path / "runs" / f"{place}{seed}", seed=seed)
        text = (run / "config.yaml").read_text()
        at = text.index("weights: null", text.index("autoencoder:"))
        (run / "config.yaml").write_text(f"{text[:at]}weights: /data/{file}{text[at + len('weights: null') :]}")
    heads = [f"autoencoder (from {name})-frozen" for name in told]
    assert sorted(frame.read(tmp_path).runs["head"]) == sorted(2 * heads)


def test_a_released_head_is_no_control(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in range(5):
        make_run(tmp_path / "runs" / f"a{seed}", seed=seed)
        other = make_run(tmp_path / "runs" / f"o{seed}", init="orthogonal", seed=seed, accuracy=0.5)
        text = (other / "config.yaml").read_text()
        (other / "config.yaml").write_text(text.replace("unfreeze_at: null", "unfreeze_at: 0.5"))
    caveats = " ".join(answer.answer(frame.read(tmp_path)).caveats)
    assert "No frozen control other than the autoencoder" in caveats
    assert "every frozen control" not in caveats


def test_a_control_autoencoder_is_a_head_of_its_own(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in range(5):
        make_run(tmp_path / "runs" / f"own{seed}", seed=seed, accuracy=0.9)
        other = make_run(tmp_path / "runs" / f"noise{seed}", seed=seed, accuracy=0.5)
        text = (other / "config.yaml").read_text()
        assert "weights: null" in text
        (other / "config.yaml").write_text(text.replace("weights: null", "weights: given/noise.safetensors"))
    found = answer.answer(frame.read(tmp_path))
    assert found.headline.startswith("Frozen autoencoder beats frozen autoencoder (from noise) by 40.0 points")


def test_an_autoencoder_file_a_seed_is_one_head(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in range(2):
        run = make_run(tmp_path / "runs" / f"own{seed}", seed=seed)
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("weights: null", f"weights: given/{seed}.safetensors"))
    assert frame.read(tmp_path).heads == ["autoencoder-frozen"]


def test_runs_on_other_pictures_are_not_matched(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for seed in range(5):
        make_run(tmp_path / "runs" / f"a{seed}", seed=seed)
        other = make_run(tmp_path / "runs" / f"r{seed}", init="random", frozen=False, seed=seed)
        if seed < 2:
            result = json.loads((other / "result.json").read_text())
            result["data"]["fingerprint"] = "other"
            (other / "result.json").write_text(json.dumps(result))
    found = answer.answer(frame.read(tmp_path))
    assert [len(c.pairing.first) for c in found.comparisons] == [3]
    text = " ".join(found.caveats)
    assert "digits changed: its runs saw 2 different sets of pictures" in text
    assert "4 of 10 probed runs are in no comparison" in text


def test_sets_are_called_as_the_study_calls_them(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for label in ("cats", "dogs"):
        make_run(tmp_path / "runs" / f"data={label},init=random,seed=0", set_name="train")
    assert frame.read(tmp_path).sets == ["cats", "dogs"]


def test_an_unfinished_study_says_so(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for init, frozen in (("autoencoder", True), ("random", False)):
        make_run(
            tmp_path / "runs" / f"data=digits,init={init},frozen={str(frozen).lower()},seed=0", init=init, frozen=frozen
        )
    grid = {
        "name": "x",
        "base": {},
        "data": {"digits": {"sources": ["digits"], "options": {}}},
        "seeds": [0, 1],
        "factors": {"head.init": ["autoencoder", "random"], "head.frozen": [True, False]},
        "compare": [["autoencoder-frozen", "pca-frozen"], ["ae", "mlp"]],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    found = answer.answer(frame.read(tmp_path))
    text = " ".join(found.caveats)
    assert "6 of 8 planned runs are not there yet" in text
    assert "study.yaml names autoencoder-frozen against pca-frozen, which no two matched runs allow" in text


def test_a_set_that_has_only_begun_does_not_hide_the_answer(make_run: Callable[..., Path], tmp_path: Path) -> None:
    _study(make_run, tmp_path, {("autoencoder", True): 0.9, ("random", False): 0.6}, seeds=5)
    make_run(tmp_path / "runs" / "photos", set_name="photos")
    found = answer.answer(frame.read(tmp_path))
    assert found.headline.startswith("Frozen autoencoder beats trainable random on digits by ")


def test_under_five_clusters_are_called_too_few(make_run: Callable[..., Path], tmp_path: Path) -> None:
    found = _study(make_run, tmp_path, {("autoencoder", True): 0.9, ("random", False): 0.6}, seeds=4)
    assert found.headline.endswith("; 4 seeds are too few to settle it.")


def test_runs_with_other_settings_are_not_matched(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    other = make_run(tmp_path / "runs" / "b", init="random", frozen=False)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("temperature: 0.5", "temperature: 0.1"))
    found = answer.answer(frame.read(tmp_path))
    assert found.comparisons == []
    assert found.headline.startswith("No two heads can be compared yet: 2 probed runs")


def test_one_head_is_told_beside_the_network_before(make_run: Callable[..., Path], tmp_path: Path) -> None:
    """Set by set, over seeds; of one seed without an interval."""
    for seed, (accuracy, before) in enumerate([(0.70, 0.62), (0.72, 0.66), (0.71, 0.64)]):
        path = make_run(tmp_path / "runs" / f"{seed}", seed=seed) / "result.json"
        _told(path, accuracy, before)
    gains = [8.0, 6.0, 7.0]
    low, high = stats.t.interval(0.95, 2, np.mean(gains), stats.sem(gains))
    told = f"SimCLR was worth +7.0 points from 64.0 % on digits ({low:.1f} to {high:.1f} over 3 seeds)."
    found = answer.answer(frame.read(tmp_path))
    assert found.comparisons == []
    assert found.headline == f"By linear probe, beside the untrained backbone, {told} No heads are compared."
    _told(make_run(tmp_path / "runs" / "other", set_name="other") / "result.json", 0.5, 0.6)
    assert "and −10.0 points from 60.0 % on other (1 seed)." in answer.answer(frame.read(tmp_path)).headline


def _told(path: Path, accuracy: float, before: float) -> None:
    """Put both accuracies into a result."""
    result = json.loads(path.read_text())
    result["probes"]["linear"]["accuracy"] = accuracy
    result["untrained"] = {"linear": {"accuracy": before}}
    path.write_text(json.dumps(result))


def test_factors_are_compared_within_a_head(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for activation, seed in product(("relu", "tanh"), range(3)):
        make_run(tmp_path / "runs" / f"{activation}{seed}", activation=activation, seed=seed)
    (comparison,) = answer.answer(frame.read(tmp_path)).comparisons
    assert (comparison.pairing.factor, comparison.pairing.a, comparison.pairing.within) == (
        "activation",
        "ReLU",
        "autoencoder-frozen",
    )


def test_heads_of_a_plugin_that_is_not_imported_are_compared(make_run: Callable[..., Path], tmp_path: Path) -> None:
    for init, seed in product(("pca", "random"), range(3)):
        run = make_run(tmp_path / "runs" / f"{init}{seed}", init=init, seed=seed, accuracy=0.5 + 0.2 * (init == "pca"))
        for name in ("config.yaml", "result.json"):
            (run / name).write_text((run / name).read_text().replace("pca", "mine"))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"compare": [["mine-frozen", "random-frozen"]]}))
    assert answer.answer(frame.read(tmp_path)).headline.startswith("Frozen mine beats frozen random by 20.0 points")


@pytest.mark.parametrize("entry", ["temperature", ["ae"], ["ae", "vae-froze"], {"a": 1}])
def test_an_unknown_comparison_is_refused(entry: object) -> None:
    with pytest.raises(InputError, match=r"study\.yaml: compare holds"):
        pairing.pair(_runs(2, (128,), nested=True), [entry])
