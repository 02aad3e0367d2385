"""The page: one file that loads nothing, says what it must, and cannot be injected into."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import yaml

from headstart.records.errors import InputError
from headstart.report import frame, write_report
from headstart.report.figures import file_name
from headstart.report.probing import probe_rows


@pytest.fixture(scope="module")
def page(authors_report: Path) -> str:
    return authors_report.read_text(encoding="utf-8")


def test_the_authors_page_states_what_their_data_show(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    assert (
        "Frozen autoencoder beats trainable random by 2.8 points (1.4 to 4.2 over 15 autoencoders; 282 of 360 pairs)."
        in text
    )
    assert "There is one seed: run-to-run noise is not separated from the differences." in text
    assert "No frozen control other than the autoencoder was run" in text
    assert "1.7 points above the best mlp head on average, 2.9 at most (STL10); the paper prints 1.74 and 2.9" in text
    assert len(re.findall(r"<tr><td>(?:Imagenette|STL10|CIFAR10|FGVCAircraft|CIFAR100)</td>", page)) == 765


def test_the_page_is_small_and_loads_nothing(page: str) -> None:
    assert len(page.encode()) < 5_000_000
    without_names = page.replace("http://www.w3.org/2000/svg", "")
    assert "http:" not in without_names
    assert "https:" not in without_names
    assert not re.search(r"@import|url\(", page)
    assert all(uri.startswith("data:") for uri in re.findall(r'(?:src|icon" href)="([^"]*)"', page))
    assert "default-src 'none'" in page


def test_every_figure_is_described_and_lies_beside_the_page(page: str, authors: Path) -> None:
    labels = re.findall(r'<svg class="figure"[^>]*aria-label="([^"]*)"', page)
    assert len(labels) > 20
    titles = re.findall(r'<span class="name">([^<]*)</span>', page)
    assert titles[:4] == [
        "Frozen autoencoder − trainable random",
        "Frozen autoencoder − trainable autoencoder",
        "Trainable autoencoder − trainable random",
        "Imagenette",
    ]
    assert all(len(label) > 30 for label in labels)
    links = re.findall(r'href="((?:figures|tables)/[^"]+)"', page)
    assert len(links) == 2 * len(labels) + 15
    for link in links:
        file = authors / link
        if file.suffix == ".svg":
            root = ElementTree.fromstring(file.read_text(encoding="utf-8"))
            assert root.attrib["aria-label"]
        elif file.suffix == ".csv":
            assert len(pd.read_csv(file)) > 0
        else:
            assert file.stat().st_size > 100


def test_a_run_has_a_page_of_its_own(make_run: Callable[..., Path], tmp_path: Path) -> None:
    out = write_report(make_run(tmp_path / "run"))
    page = out.read_text(encoding="utf-8")
    assert out == tmp_path / "run" / "report.html"
    assert page.count('src="data:image/png;base64,') == 2
    text = re.sub(r"<[^>]+>", " ", page)
    assert "After SimCLR, linear probe reaches 80.0 % (73.9 to 85.0); on the untrained backbone, 40.0 %" in text
    for words in (
        "SimCLR: training loss",
        "Online probe: accuracy",
        "Spectrum of h",
        "contrastive.temperature",
        "Pictures set aside",
        "One run cannot say whether its head helped",
    ):
        assert words in text, words
    assert "<script>alert" not in page
    assert {f.name for f in (tmp_path / "run" / "tables").iterdir()} >= {f"table{i}.csv" for i in range(2, 7)}


def test_a_run_without_labels_and_an_autoencoder_run_have_pages(make_run: Callable[..., Path], tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "unlabelled", probes=())).read_text(encoding="utf-8")
    assert "It was not probed" in page
    assert "Pictures the autoencoder did not train on" in page
    (tmp_path / "unlabelled" / "samples" / "reconstructions.png").unlink()
    assert "the autoencoder did not" not in write_report(tmp_path / "unlabelled").read_text(encoding="utf-8")
    run = make_run(tmp_path / "autoencoder")
    result = json.loads((run / "result.json").read_text())
    result |= {"stage": "autoencoder", "contrastive": None, "probes": {}, "untrained": {}, "geometry": {"head": None}}
    (run / "result.json").write_text(json.dumps(result))
    assert "mean squared error of 0.01000" in write_report(run).read_text(encoding="utf-8")


def test_a_study_of_autoencoders_alone_is_told_short_and_by_what_is_comparable(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    """No empty table of runs, no probe that judged nothing; Z-scored errors beside plain ones in no order or mean."""
    errors = {(False, 64): 0.02, (False, 128): 0.01, (True, 64): 0.5, (True, 128): 0.6}
    for (scored, size), mse in errors.items():
        for seed in range(2):
            run = make_run(tmp_path / "runs" / f"{scored}-{size}-{seed}", seed=seed, hidden_dim=size)
            result = json.loads((run / "result.json").read_text())
            result |= {"stage": "autoencoder", "contrastive": None, "probes": {}, "untrained": {}, "geometry": {}}
            result["autoencoder"]["test_mse"] = mse + seed / 1000
            (run / "result.json").write_text(json.dumps(result))
            config = yaml.safe_load((run / "config.yaml").read_text())
            config["autoencoder"]["normalize"] = scored
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            lines = [{"stage": "autoencoder", "epoch": epoch, "loss": mse / epoch} for epoch in (1, 2)]
            (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "study.yaml").write_text("name: kinds\ndata: digits\n")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", write_report(tmp_path).read_text(encoding="utf-8")))
    assert "kinds 8 autoencoders digits 2 seeds" in text
    assert (
        "the lowest test MSE is 0.01000 to 0.01100 on digits with an embedding of 128 of kind mlp (2 seeds) and "
        "0.50000 to 0.50100 on digits with an embedding of 64 of kind mlp, Z-scored (2 seeds)." in text
    )
    assert "mlp 64 2 0.02050 0.02000 0.02100" in text  # a row: kind, size, seeds, mean, lowest, highest
    for panel in ("Autoencoder: training loss on digits, mlp SVG", "Autoencoder: training loss on digits, mlp, Z-sc"):
        assert panel in text
    for nothing in ("accuracy", "How this was computed", "0 runs", "dashed where"):
        assert nothing not in text


def test_two_runs_are_shown_side_by_side(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "autoencoder-frozen", accuracy=0.35)
    make_run(tmp_path / "runs" / "random-trainable", init="random", frozen=False, accuracy=0.30)
    (tmp_path / "study.yaml").write_text("compare: [head]\nseeds: [0]\n")
    text = re.sub(r"<[^>]+>", " ", write_report(tmp_path).read_text(encoding="utf-8"))
    assert "by 5.0 points in one pair of runs; one seed and one autoencoder cannot settle it." in text
    assert (
        "With the frozen autoencoder head, SimCLR gained nothing by the paper&#39;s probe (35.0 against 40.0 %" in text
    )
    assert "rests on 200 test pictures, and is known to about ±7 points from that alone" in text
    for words in ("What SimCLR sees", "What the autoencoder keeps", "SimCLR: training loss", "Every probe"):
        assert words in text


def test_hostile_names_stay_text(make_run: Callable[..., Path], tmp_path: Path) -> None:
    evil = "<img src=x onerror=alert(1)>"
    make_run(tmp_path / "runs" / evil, set_name="=cmd()<script>alert(2)<", seed=1)
    make_run(tmp_path / "runs" / "b", set_name="=cmd()<script>alert(2)<", init="random", frozen=False, seed=1)
    (tmp_path / "runs" / "c").mkdir()
    (tmp_path / "runs" / "c" / "failed.json").write_text(json.dumps({"reason": "<script>alert(3)</script>"}))
    (tmp_path / "study.yaml").write_text("name: '<b>study</b>'\n")
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert evil not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<b>study" not in page
    assert page.count("<script>") == 1, "only the page's own"
    assert "&lt;script&gt;alert(3)" in page
    for svg in (tmp_path / "figures").glob("*.svg"):
        ElementTree.fromstring(svg.read_text(encoding="utf-8"))
        assert "<script" not in svg.read_text(encoding="utf-8")
    assert "'=cmd()" in (tmp_path / "tables" / "table2.csv").read_text()
    assert not re.search(r"^=cmd", (tmp_path / "tables" / "table2.csv").read_text(), re.MULTILINE)


@pytest.mark.parametrize("names", [("日本", "中国"), ("acc@1", "acc-1"), ("a_b", "a-b"), ("set", "集")])
def test_figures_of_two_names_are_two_files(names: tuple[str, str]) -> None:
    first, second = map(file_name, names)
    assert first != second
    for found in (first, second):
        assert re.fullmatch(r"[a-z0-9_-]+", found)
    assert (file_name("CIFAR10"), file_name("acc-1")) == ("cifar10", "acc-1")


def test_failed_and_unprobed_runs_are_counted(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    make_run(tmp_path / "runs" / "b", init="random", frozen=False)
    make_run(tmp_path / "runs" / "c", init="pca", probes=())
    (tmp_path / "runs" / "d").mkdir()
    (tmp_path / "runs" / "d" / "failed.json").write_text('{"reason": "out of memory"}')
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "1 of 3 runs is without the probe and in no comparison." in page
    assert "1 run failed and is in no comparison." in page
    assert "out of memory" in page


def test_early_accuracy_is_read_after_a_tenth_of_the_training(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a", epochs=40, accuracy=0.8)
    runs = frame.read(tmp_path).runs
    assert runs["early"].tolist() == pytest.approx([0.8 * 4 / 40])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda run: (run / "result.json").write_text("{"), r"result\.json is not valid JSON"),
        (lambda run: (run / "result.json").write_text("{}"), r"result\.json is not a run's result"),
        (lambda run: (run / "result.json").unlink(), r"holds no finished run yet"),
        (lambda run: (run / "config.yaml").write_text("a: [\n"), r"config\.yaml, line \d+ is not plain YAML"),
    ],
)
def test_damage_is_named(
    damage: Callable[[Path], object], message: str, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    damage(make_run(tmp_path / "runs" / "a"))
    with pytest.raises(InputError, match=message):
        write_report(tmp_path)


def test_wrong_folders_and_probes_are_named(make_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(InputError, match="neither result"):
        write_report(tmp_path)
    make_run(tmp_path / "runs" / "a")
    with pytest.raises(InputError, match="has the probe 'knn'; there is linear, paper"):
        write_report(tmp_path, "knn")


def test_the_probe_that_study_yaml_names_decides(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "a")
    assert frame.read(tmp_path).probe == "linear"
    study = {"data": {"digits": {"sources": ["digits"]}}, "seeds": [0], "decides": "paper"}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    assert frame.read(tmp_path).probe == "paper"
    assert ", named in study.yaml" in write_report(tmp_path).read_text()
    assert frame.read(tmp_path, "linear").probe == "linear"
    assert ", named in study.yaml" not in write_report(tmp_path, "linear").read_text()
    for other in ("few_shot_5", ["paper"]):  # no run was judged by it
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(study | {"decides": other}))
        assert frame.read(tmp_path).probe == "linear"
        assert "which study.yaml names" in write_report(tmp_path).read_text()


def test_heads_of_several_seeds_stand_beside_what_they_began_as() -> None:
    def found(accuracy: float) -> dict[str, object]:
        return {"linear": {"accuracy": accuracy, "ci95": [accuracy - 0.1, accuracy + 0.1]}}

    results = {
        str(seed): {"probes": found(after), "untrained": found(before), "backbone": {"weights": "none"}}
        for seed, (after, before) in enumerate([(0.5, 0.7), (0.4, 0.5)])
    }
    rows = probe_rows(results, dict.fromkeys(results, "random-frozen"))
    assert rows["accuracy"].tolist() == pytest.approx([45, 60])
    assert rows["low"].isna().all()
    alone = probe_rows({"0": results["0"]}, {"0": "random-frozen"})
    assert alone[["accuracy", "low"]].to_numpy().tolist() == [pytest.approx([50, 40]), pytest.approx([70, 60])]
