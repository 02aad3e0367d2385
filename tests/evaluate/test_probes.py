"""The probes against scikit-learn, plain transcriptions, chance, and the authors' counts."""

import tracemalloc
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_fscore_support
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import StandardScaler, normalize
from torch import Tensor, nn

from headstart.engine.randomness import order
from headstart.evaluate import logistic, probes, scores
from headstart.evaluate.scores import macro_of
from headstart.records.names import PROBES, Probe
from headstart.statistics import t_interval, wilson

SPLITS = ("train", "val", "test")
Arrays = dict[str, np.ndarray]  # by split
Problem = tuple[Arrays, Arrays, dict[str, list[str]], list[str]]  # features, labels, names, classes


def problem(
    seed: int = 0,
    sizes: tuple[int, int, int] = (1500, 300, 1000),
    classes: int = 5,
    width: int = 24,
    noise: float = 2.0,
    labelled: float = 1.0,
) -> Problem:
    """Overlapping classes in correlated, shifted, positive features, as a backbone's h has."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, width))
    mixing = rng.normal(size=(width, width)) * np.logspace(0, -1.5, width)
    features, labels, names = {}, {}, {}
    for split, n in zip(SPLITS, sizes, strict=True):
        y = rng.integers(0, classes, n)
        x = np.abs((centres[y] + noise * rng.normal(size=(n, width))) @ mixing + 1)
        features[split] = x.astype(np.float32)
        labels[split] = np.where(rng.random(n) < labelled, y, -1)
        names[split] = [f"{split}/{i:05d}.png" for i in range(n)]
    return features, labels, names, [f"class {c}" for c in range(classes)]


def standardised(features: Arrays) -> Arrays:
    scaler = StandardScaler().fit(features["train"].astype(float))
    return {split: scaler.transform(features[split].astype(float)) for split in SPLITS}


def sklearn_linear(x: Arrays, labels: Arrays, rows: np.ndarray) -> tuple[np.ndarray, float]:
    """Test predictions of scikit-learn's logistic regression fitted on `rows`, C chosen on val."""
    fits = [
        LogisticRegression(C=C, tol=1e-8, max_iter=20000).fit(x["train"][rows], labels["train"][rows])
        for C in probes.C_GRID
    ]
    best = int(np.argmax([fit.score(x["val"], labels["val"]) for fit in fits]))
    return fits[best].predict(x["test"]), probes.C_GRID[best]


class TestAgainstReference:
    def test_linear_is_scikit_learns(self) -> None:
        features, labels, names, classes = problem()
        result = probes.run(features, labels, names, classes, which=["linear"])["linear"]
        predicted, C = sklearn_linear(standardised(features), labels, np.arange(len(labels["train"])))
        assert result["C"] == C
        assert result["correct"] == (predicted == labels["test"]).sum()
        confusion = np.zeros((5, 5), int)
        np.add.at(confusion, (labels["test"], predicted), 1)
        assert result["confusion"] == confusion.tolist()
        assert result["per_class"]["class 2"] == confusion[2, 2] / confusion[2].sum()

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_linear_agrees_to_a_thousandth_on_wide_separable_features(self, seed: int) -> None:
        features, labels, names, classes = problem(seed, (600, 200, 1000), classes=12, width=200, noise=1.0)
        result = probes.run(features, labels, names, classes, which=["linear"])["linear"]
        predicted, C = sklearn_linear(standardised(features), labels, np.arange(600))
        assert result["C"] == C
        assert result["accuracy"] == pytest.approx((predicted == labels["test"]).mean(), abs=1e-3)

    @pytest.mark.parametrize("which", PROBES)
    def test_macro_figures_are_scikit_learns(self, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of every probe that is registered, from what it predicted in each of its draws."""
        predictions: list[tuple[Tensor, Tensor]] = []
        real = scores.confusion_of

        def seen(y: Tensor, predicted: Tensor, classes: int) -> Tensor:
            predictions.append((y, predicted))
            return real(y, predicted, classes)

        monkeypatch.setattr(probes, "confusion_of", seen)
        features, labels, names, classes = problem(noise=4.0, sizes=(300, 100, 60))
        result = probes.run(features, labels, names, classes, which=[which])[which]
        draws = predictions[:1] if which == "knn" else predictions  # then come its 200 neighbours
        assert len(draws) == len(result.get("draws", [0]))
        each = [precision_recall_fscore_support(y, p, average="macro", zero_division=0)[:3] for y, p in draws]
        assert list(result["macro"]) == ["precision", "recall", "f1"]
        assert list(result["macro"].values()) == pytest.approx(np.mean(each, axis=0), abs=1e-12)
        assert result["accuracy"] == pytest.approx(np.mean([(y == p).double().mean() for y, p in draws]), abs=1e-12)

    def test_a_probe_of_ones_own_gets_them_from_its_scores_or_its_confusion(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def centres(task: probes.Task) -> Tensor:
            x, y = task.standardised("train"), task.y["train"]
            means = torch.stack([x[y == c].mean(0) for c in range(len(task.classes))])
            return -torch.cdist(task.standardised("test"), means)

        def counted(task: probes.Task) -> dict[str, Any]:
            confusion = scores.confusion_of(task.y["test"], centres(task).argmax(1), len(task.classes))
            return {"accuracy": 0.5, "n_test": 60, "ci95": [0.4, 0.6], "confusion": confusion.tolist()}

        monkeypatch.setattr(PROBES, "_choices", dict(PROBES._choices))
        for name, make in (("centres", centres), ("counted", counted), ("bare", lambda task: {"accuracy": 0.5})):
            PROBES.register(Probe(name=name, help="", make=make))
        features, labels, names, classes = problem(noise=4.0, sizes=(300, 100, 60))
        said: list[str] = []
        found = probes.run(features, labels, names, classes, which=["centres", "counted", "bare"], say=said.append)
        predicted = NearestCentroid().fit(standardised(features)["train"], labels["train"])
        guesses = predicted.predict(standardised(features)["test"])
        expected = precision_recall_fscore_support(labels["test"], guesses, average="macro", zero_division=0)[:3]
        for name in ("centres", "counted"):
            assert list(found[name]["macro"].values()) == pytest.approx(expected, abs=1e-12)
        assert found["centres"]["correct"] == (guesses == labels["test"]).sum()
        assert {"ci95", "n_test", "per_class", "confusion"} <= found["centres"].keys()
        assert said == ["probe bare has no macro figures: it returns neither scores nor a confusion matrix"]

    @pytest.mark.parametrize(("true", "predicted"), [([0, 1, 1], [0, 0, 0]), ([2, 2], [2, 2]), ([0, 1, 3], [2, 2, 3])])
    def test_macro_figures_leave_out_classes_that_never_occur(self, true: list[int], predicted: list[int]) -> None:
        confusion = scores.confusion_of(torch.tensor(true), torch.tensor(predicted), 6)
        expected = precision_recall_fscore_support(true, predicted, average="macro", zero_division=0)
        assert list(macro_of(confusion).values()) == pytest.approx(expected[:3], abs=1e-12)

    @pytest.mark.parametrize("broken", ["float32", "both", "neither"])
    def test_a_decomposition_that_does_not_converge_is_done_another_way(
        self, broken: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, x = torch.linalg.eigh, torch.randn(60, 40, generator=torch.Generator().manual_seed(0))
        x[:, 10:30] = 0  # features that never vary, as dead units give

        def eigh(matrix: Tensor) -> Any:
            if broken == "both" or (broken == "float32" and matrix.dtype == torch.float32):
                raise torch.linalg.LinAlgError(  # type: ignore[attr-defined]
                    "linalg.eigh: The algorithm failed to converge"
                )
            return real(matrix)

        monkeypatch.setattr(torch.linalg, "eigh", eigh)
        directions, mean_squares = logistic.principal_axes(x)
        assert directions.dtype == mean_squares.dtype == torch.float32
        torch.testing.assert_close(directions.T @ directions, torch.eye(40), rtol=0, atol=1e-5)
        torch.testing.assert_close((x @ directions).square().mean(0), mean_squares, rtol=1e-4, atol=1e-6)
        assert mean_squares.diff().min() >= -1e-6

    def test_weights_are_the_minimum(self) -> None:
        features, labels, _, classes = problem()
        x, y = standardised(features)["train"], labels["train"]
        xt, yt = torch.from_numpy(x).float(), torch.from_numpy(y)
        axes, mean_squares = logistic.principal_axes(xt)
        with torch.no_grad():
            plain = logistic.lbfgs(xt[None], yt[None], len(classes), 0.1)
            w, b = logistic.lbfgs((xt @ axes)[None], yt[None], len(classes), 0.1, mean_squares=mean_squares)
        reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=20000).fit(x, y)
        for weights, biases in (plain, (axes @ w, b)):
            np.testing.assert_allclose(weights[0].numpy().T, reference.coef_, atol=1e-3)
            centred = biases[0].numpy() - biases[0].numpy().mean()
            np.testing.assert_allclose(centred, reference.intercept_ - reference.intercept_.mean(), atol=1e-3)

    @pytest.mark.parametrize("converges", [True, False])
    def test_fewer_rows_than_features_have_the_same_minimum(
        self, converges: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not converges:

            def eigh(matrix: Tensor) -> Any:
                raise torch.linalg.LinAlgError("linalg.eigh: failed to converge")  # type: ignore[attr-defined]

            monkeypatch.setattr(torch.linalg, "eigh", eigh)
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, 30, 90, generator=generator) * torch.linspace(3, 0.01, 90)
        x[0, 1], x[1, :, 50:] = x[0, 0], 0  # a picture twice; units that are dead
        y = torch.arange(30).expand(2, 30) % 4
        with torch.no_grad():
            fitted = logistic.lbfgs(x, y, 4, 0.1)
            begun = logistic.lbfgs(x, y, 4, 0.1, start=logistic.lbfgs(x, y, 4, 10.0), mean_squares=torch.ones(90))
        assert fitted[0].shape == (2, 90, 4)
        for weights, biases in (fitted, begun):
            for draw in range(2):
                rows, labels = x[draw].double().numpy(), y[draw].numpy()
                reference = LogisticRegression(C=0.1, tol=1e-10, max_iter=20000).fit(rows, labels)
                np.testing.assert_allclose(weights[draw].numpy().T, reference.coef_, atol=1e-4)
                centred = biases[draw].numpy() - biases[draw].numpy().mean()
                np.testing.assert_allclose(centred, reference.intercept_ - reference.intercept_.mean(), atol=1e-4)

    def test_knn_is_scikit_learns(self) -> None:
        features, labels, names, classes = problem()
        result = probes.run(features, labels, names, classes, which=["knn"])["knn"]
        reference = KNeighborsClassifier(
            20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.1)
        ).fit(features["train"], labels["train"])
        assert result["correct"] == (reference.predict(features["test"]) == labels["test"]).sum()
        assert (result["k"], result["temperature"]) == (20, 0.1)
        wide = reference.set_params(n_neighbors=min(200, len(labels["train"])))
        assert result["wide"]["k"] == min(200, len(labels["train"]))
        assert result["wide"]["correct"] == (wide.predict(features["test"]) == labels["test"]).sum()
        low, high = result["wide"]["ci95"]
        assert low < result["wide"]["accuracy"] < high

    @pytest.mark.parametrize("blocks", [(256, 2**17), (7, 17), (1, 1)])
    def test_knn_in_blocks_is_a_plain_loop(self, blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(probes, "QUERIES", blocks[0])
        monkeypatch.setattr(probes, "ROWS", blocks[1])
        features, labels, names, classes = problem(4, (60, 0, 40), classes=13)
        result = probes.run(features, labels, names, classes, which=["knn"])["knn"]
        bank, queries = normalize(features["train"]), normalize(features["test"])
        right = top5 = 0
        for query, own in zip(queries, labels["test"], strict=True):
            nearest = np.argsort(-(bank @ query))[:20]
            votes = np.zeros(13)
            for i in nearest:
                votes[labels["train"][i]] += np.exp(bank[i] @ query / 0.1)
            right += votes.argmax() == own
            top5 += votes[own] > 0 and (votes > votes[own]).sum() < 5
        assert result["correct"] == right
        assert result["top5"] == pytest.approx(top5 / 40)

    @pytest.mark.parametrize("shots", [1, 5])
    def test_few_shot_is_a_plain_reference(self, shots: int) -> None:
        features, labels, names, classes = problem()
        result = probes.run(features, labels, names, classes, which=[f"few_shot_{shots}"])[f"few_shot_{shots}"]
        y = labels["train"]
        accuracies = []
        for d in range(8):
            shuffled = order(0, "probe/labels", d, len(y)).numpy()
            rows = np.concatenate([shuffled[y[shuffled] == c][:shots] for c in range(5)])
            fit = LogisticRegression(C=0.1, tol=1e-10, max_iter=20000)
            fit.fit(10 * normalize(features["train"][rows].astype(float)), y[rows])
            accuracies.append(fit.score(10 * normalize(features["test"].astype(float)), labels["test"]))
        assert result["draws"] == accuracies
        assert result["accuracy"] == pytest.approx(np.mean(accuracies))
        assert result["std"] == pytest.approx(np.std(accuracies, ddof=1))
        assert result["ci95"] == pytest.approx(t_interval(accuracies))
        assert result["n_test"] == 1000

    @pytest.mark.parametrize(("name", "share"), [("linear_1pct", 0.01), ("linear_10pct", 0.1)])
    def test_linear_with_fewer_labels_is_a_plain_reference(self, name: str, share: float) -> None:
        features, labels, names, classes = problem()
        result = probes.run(features, labels, names, classes, which=[name])[name]
        x, y = standardised(features), labels["train"]
        accuracies, chosen = [], []
        for d in range(8):
            shuffled = order(0, "probe/labels", d, len(y)).numpy()
            rows = np.concatenate(
                [shuffled[y[shuffled] == c][: max(1, round(share * (y == c).sum()))] for c in range(5)]
            )
            predicted, C = sklearn_linear(x, labels, rows)
            accuracies.append((predicted == labels["test"]).mean())
            chosen.append(C)
        assert result["C"] == chosen
        assert result["draws"] == pytest.approx(accuracies, abs=1e-3)

    def test_single_draw_intervals_are_wilsons(self) -> None:
        features, labels, names, classes = problem()
        for result in probes.run(features, labels, names, classes, which=["paper", "linear", "knn"]).values():
            assert result["accuracy"] == result["correct"] / result["n_test"]
            assert result["ci95"] == list(wilson(result["correct"], result["n_test"]))


class Transcription(nn.Module):
    """The authors' probe in plain torch: nn.Linear, SGD, ReduceLROnPlateau, checkpoint of lowest val loss."""

    def __init__(self, weights: Tensor, biases: Tensor) -> None:
        super().__init__()
        self.linear, self.correct = nn.Linear(*weights.shape), 0
        with torch.no_grad():
            self.linear.weight.copy_(weights.T)
            self.linear.bias.copy_(biases)

    def fit(self, x: Tensor, y: Tensor, x_val: Tensor, y_val: Tensor, epochs: int, patience: int = 10) -> None:
        loss_of = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=patience)
        lowest, self.steps, self.rates = float("inf"), 0, []
        for epoch in range(epochs):
            permutation = order(0, "probe/paper/order", epoch, len(x))
            for rows in permutation.split(32):
                optimizer.zero_grad()
                loss = loss_of(self.linear(x[rows]), y[rows])
                loss.backward()
                optimizer.step()
                self.steps += 1
            with torch.no_grad():
                val_loss = loss_of(self.linear(x_val), y_val).item()
            if val_loss < lowest:
                lowest, self.best_epoch = val_loss, epoch + 1
                self.kept = {k: v.clone() for k, v in self.linear.state_dict().items()}
            self.rates.append(optimizer.param_groups[0]["lr"])
            schedule.step(loss.item())
        self.lowest = lowest


class TestPaper:
    @staticmethod
    def both(features: Arrays, labels: Arrays) -> tuple[Transcription, logistic.SgdFit]:
        n = len(labels["test"])
        train, val, test = probes.paper_split(n, 0)
        x, y = torch.from_numpy(features["test"]).double(), torch.from_numpy(labels["test"])
        weights, biases = probes.linear_init(x.shape[1], 5, 0)
        start = weights.double(), biases.double()
        plain = Transcription(*start).double()
        plain.fit(x[train], y[train], x[val], y[val], epochs=50)
        plain.linear.load_state_dict(plain.kept)
        plain.correct = int((plain.linear(x[test]).argmax(1) == y[test]).sum())
        fit = logistic.sgd(
            x[train],
            y[train],
            x[val],
            y[val],
            start=start,
            order=lambda epoch: order(0, "probe/paper/order", epoch, len(train)),
        )
        assert fit is not None
        return plain, fit

    @pytest.mark.parametrize(
        ("scale", "n", "falls", "early"), [(1, 1003, True, False), (3, 203, False, True), (6, 203, True, False)]
    )
    def test_equals_a_plain_torch_transcription(self, scale: int, n: int, falls: bool, early: bool) -> None:
        """Many steps; the lowest val loss before the end; large features.

        In float64, where a thousand steps agree on every kind of CPU; the run itself is float32, and only close.
        """
        features, labels, names, classes = problem(sizes=(10, 10, n), noise=3.0)
        features = {split: scale * x for split, x in features.items()}
        plain, fit = self.both(features, labels)
        torch.testing.assert_close(fit.weights.T, plain.kept["weight"], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(fit.biases, plain.kept["bias"], rtol=1e-9, atol=1e-9)
        assert fit.epoch == plain.best_epoch
        result = probes.run(features, labels, names, classes, which=["paper"])["paper"]
        assert result["val_loss"] == pytest.approx(plain.lowest, rel=1e-3)
        assert result["correct"] == pytest.approx(plain.correct, abs=2)
        assert (plain.rates[-1] < 1e-3, plain.best_epoch < 50) == (falls, early)
        assert plain.steps == 50 * result["steps_per_epoch"]

    def test_counts_of_ten_thousand_random_features(self) -> None:
        rng = np.random.default_rng(0)
        features = {"test": rng.normal(size=(10_000, 512)).astype(np.float32)}
        labels = {"test": rng.integers(0, 10, 10_000)}
        names = {"test": [f"{i}.png" for i in range(10_000)]}
        result = probes.run(features, labels, names, [str(c) for c in range(10)], which=["paper"])["paper"]
        assert (result["steps_per_epoch"], result["n_test"]) == (219, 2000)
        low, high = wilson(result["correct"], 2000, level=0.999)
        assert low < 0.1 < high

    @pytest.mark.parametrize(("n", "steps", "judged"), [(8000, 175, 1600), (3925, 86, 785), (3333, 73, 666)])
    def test_counts_of_the_authors_rows(self, n: int, steps: int, judged: int) -> None:
        """STL10, Imagenette and FGVCAircraft: steps an epoch and judged pictures follow from their CSVs."""
        features = {"test": np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)}
        labels, names = {"test": np.arange(n) % 3}, {"test": [f"{i}.png" for i in range(n)]}
        result = probes.run(features, labels, names, list("abc"), which=["paper"])["paper"]
        assert (result["steps_per_epoch"], result["n_test"]) == (steps, judged)


def test_random_labels_give_chance() -> None:
    inside = dict.fromkeys(PROBES, 0)
    for seed in range(20):
        features, labels, names, classes = problem(seed, (1200, 100, 400), classes=4, width=12)
        rng = np.random.default_rng(100 + seed)
        labels = {split: rng.permutation(np.arange(len(y)) % 4) for split, y in labels.items()}
        results = probes.run(features, labels, names, classes, seed=seed, split_seed=seed)
        for name, result in results.items():
            low, high = result["ci95"]
            inside[name] += low <= 0.25 <= high
    assert all(count >= 17 for count in inside.values()), inside


def test_order_of_pictures_changes_nothing() -> None:
    features, labels, names, classes = problem(sizes=(300, 60, 200), labelled=0.9)
    expected = probes.run(features, labels, names, classes)
    rng = np.random.default_rng(1)
    shuffled = {split: rng.permutation(len(names[split])) for split in SPLITS}
    again = probes.run(
        {split: features[split][rows] for split, rows in shuffled.items()},
        {split: labels[split][rows] for split, rows in shuffled.items()},
        {split: [names[split][i] for i in rows] for split, rows in shuffled.items()},
        classes,
    )
    assert again == expected
    assert set(expected) == set(PROBES)


def test_seeds_decide_what_they_say() -> None:
    features, labels, names, classes = problem(sizes=(300, 60, 200))
    expected = probes.run(features, labels, names, classes)
    other_training = probes.run(features, labels, names, classes, seed=1)
    other_split = probes.run(features, labels, names, classes, split_seed=1)
    for name in PROBES:
        if name != "paper":
            assert other_training[name] == expected[name]
    assert other_training["paper"]["val_loss"] != expected["paper"]["val_loss"]
    for name in ("paper", "few_shot_1", "few_shot_5", "linear_1pct", "linear_10pct"):
        assert other_split[name] != expected[name]
    assert other_split["linear"] == expected["linear"]


def test_fewer_labels_are_part_of_more() -> None:
    y = torch.from_numpy(problem()[1]["train"])
    one, five = probes.label_draws(y, lambda n: min(1, n), 0), probes.label_draws(y, lambda n: min(5, n), 0)
    assert one.shape == (8, 5)
    assert five.shape == (8, 25)
    assert all(set(a.tolist()) < set(b.tolist()) for a, b in zip(one, five, strict=True))
    assert len({tuple(draw.tolist()) for draw in one}) == 8


class TestAwkwardLabels:
    def left_out(
        self,
        features: Arrays,
        labels: Arrays,
        names: dict[str, list[str]],
        classes: list[str],
        which: Sequence[str] = tuple(PROBES),
    ) -> tuple[dict[str, Any], list[str]]:
        said: list[str] = []
        results = probes.run(features, labels, names, classes, which=which, say=said.append)
        return results, said

    def test_no_labels(self) -> None:
        features, labels, names, _ = problem(sizes=(40, 10, 30), labelled=0.0)
        results, said = self.left_out(features, labels, names, [])
        assert results == {}
        assert said == ["left out: all probes (no picture of the test split has a label)"]

    def test_labels_in_the_test_split_alone(self) -> None:
        features, labels, names, classes = problem(sizes=(40, 10, 100))
        labels["train"][:] = -1
        results, said = self.left_out(features, labels, names, classes)
        assert list(results) == ["paper"]
        others = ", ".join(name for name in PROBES if name != "paper")
        assert said == [f"left out: {others} (no picture of the train split has a label)"]

    def test_a_class_without_labelled_training_pictures_counts_as_wrong(self) -> None:
        features, labels, names, classes = problem()
        labels["train"][labels["train"] == 3] = -1
        results, said = self.left_out(features, labels, names, classes)
        assert said == []
        for name, result in results.items():
            if name != "paper":
                assert result["per_class"]["class 3"] == 0
                assert result["n_test"] == 1000

    def test_a_class_absent_from_the_test_split(self) -> None:
        features, labels, names, classes = problem()
        labels["test"][labels["test"] == 3] = -1
        results, _ = self.left_out(features, labels, names, classes)
        assert all(result["per_class"]["class 3"] is None for result in results.values())

    def test_one_class(self) -> None:
        features, labels, names, _ = problem(sizes=(40, 10, 100))
        labels = {split: np.zeros_like(y) for split, y in labels.items()}
        results, said = self.left_out(features, labels, names, ["only"])
        assert results == {}
        assert [line.partition(" (")[0] for line in said] == ["left out: paper", f"left out: {', '.join(PROBES)[7:]}"]

    def test_one_labelled_picture_a_class(self) -> None:
        features, labels, names, classes = problem()
        for c in range(5):
            labels["train"][np.flatnonzero(labels["train"] == c)[1:]] = -1
        results, said = self.left_out(features, labels, names, classes)
        assert set(results) == {"paper", "linear", "knn"}
        assert results["knn"]["k"] == 5
        assert len(said) == 1
        assert "eight draws would be one" in said[0]
        assert said[0].partition(" (")[0].count(", ") == 3

    def test_val_without_labels(self) -> None:
        features, labels, names, classes = problem(sizes=(100, 0, 50))
        results, said = self.left_out(features, labels, names, classes)
        assert said == []
        assert results["linear"]["C"] == probes.C_WITHOUT_VAL
        assert results["linear"]["C_chosen_on"] != "val"

    def test_a_test_split_too_small_for_the_paper(self) -> None:
        features, labels, names, classes = problem(sizes=(100, 20, 2))
        results, said = self.left_out(features, labels, names, classes)
        assert "paper" not in results
        assert "only 2 labelled pictures" in said[0]

    def test_constant_and_dead_features(self) -> None:
        features, labels, names, classes = problem(sizes=(100, 20, 50))
        features = {split: np.zeros_like(x) for split, x in features.items()}
        results, said = self.left_out(features, labels, names, classes)
        assert said == []
        assert all(0 <= result["accuracy"] <= result["majority"] for result in results.values())

    def test_features_that_are_not_finite(self) -> None:
        features, labels, names, classes = problem(sizes=(100, 20, 50))
        features["test"][3, 2] = np.nan
        results, said = self.left_out(features, labels, names, classes)
        assert results == {}
        assert "not finite" in said[0]

    def test_huge_features(self) -> None:
        features, labels, names, classes = problem(sizes=(100, 20, 50))
        features = {split: x * 1e30 for split, x in features.items()}
        results, said = self.left_out(features, labels, names, classes)
        assert [line.partition(" (")[0] for line in said] == ["left out: paper"]
        assert set(results) == set(PROBES) - {"paper"}


def test_more_than_ten_classes_have_top5_and_more_than_thirty_no_confusion_matrix() -> None:
    features, labels, names, classes = problem(sizes=(800, 100, 200), classes=31)
    results = probes.run(features, labels, names, classes)
    for result in results.values():
        assert result["accuracy"] <= result["top5"] <= 1
        assert "confusion" not in result
    predicted = results["linear"]["most_confused"]
    assert all(a != b and count > 0 for a, b, count in predicted)
    whole = probes.run(features, labels, names, classes, which=["linear"], confusion_up_to=31)["linear"]
    assert np.sum(whole["confusion"]) == 200
    assert np.trace(whole["confusion"]) == whole["correct"]
    few = probes.run(*problem(sizes=(100, 20, 50)), which=["linear"])["linear"]
    assert "top5" not in few
    assert "confusion" in few


def test_one_very_long_name_costs_no_memory() -> None:
    features, labels, names, classes = problem(sizes=(900, 50, 50))
    names["train"][3] = "x" * 60_000  # padded to it, 900 names would take 216 MB
    tracemalloc.start()
    probes.run(features, labels, names, classes, which=["knn"])
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()
