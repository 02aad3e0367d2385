"""The commands on a finished run, as they are typed."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from headstart.cli.commands import main
from tests.data.pictures import folder

Go = Callable[..., str]
SMALL = (
    "--data.size 16 --backbone.name mobilenet_v3_small --autoencoder.epochs 1 --contrastive.epochs 1 "
    "--contrastive.batch-size 8 --probe.names knn --threads 1 --device cpu --head.hidden-dim 8 --precision float32"
)


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    """Run a command, check its exit code, and give what it said."""

    def call(command: str, code: int = 0) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(command.split())
        said = capsys.readouterr()
        assert int(ended.value.code or 0) == code, said
        return said.out if code == 0 else said.err

    return call


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 pictures without folders, a list of their labels, and a run that was started there with relative paths."""
    root = tmp_path_factory.mktemp("place")
    folder(root / "photos", [f"{i:02d}.png" for i in range(16)])
    rows = (f"{i:02d}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(16))
    (root / "l.csv").write_text("name,label\n" + "".join(rows))
    (root / "elsewhere").mkdir()
    before = Path.cwd()
    os.chdir(root)
    try:
        with pytest.raises(SystemExit) as ended:
            main(f"pretrain photos --data.labels l.csv --out run {SMALL}".split())
    finally:
        os.chdir(before)
    assert not ended.value.code
    return root


@pytest.fixture(autouse=True)
def _elsewhere(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "elsewhere")


def labels(file: str) -> list[int]:
    with np.load(file) as found:
        return found["labels"].tolist()


def test_a_path_may_be_written_in_any_way(place: Path, go: Go) -> None:
    for data in ("../photos", "../photos/", str(place / "photos"), ""):
        go(f"embed ../run {data} --out e.npz --threads 1 --device cpu")
        assert labels("e.npz") == [1, 0] * 8, data


def test_labels_are_an_option_of_every_command_that_reads_pictures(go: Go) -> None:
    go("embed ../run ../photos --data.labels none --out n.npz --threads 1")
    assert set(labels("n.npz")) == {-1}
    said = go("embed ../run ../photos --data.size 64 --out x.npz", code=2)
    assert "--data.size is 64" in said
    said = go("select ../run -n 2 --threads 1 --device cpu --out chosen --data.labels none")
    assert "next: headstart finetune ../run --data.labels chosen/label-next.csv --final --out classifier" in said
    assert "--data.labels FILE" in go("finetune ../run ../photos --data.labels none --out none --threads 1", code=2)


def test_evaluate_finds_the_run_s_pictures_again(place: Path, go: Go) -> None:
    go("evaluate ../run --threads 1 --device cpu --name own")
    go(f"evaluate ../run --data ../photos/ --name again --threads 1 --device cpu --data.labels {place / 'l.csv'}")
    own, again = (
        json.loads(next((place / "run" / "evaluations").glob(f"{name}*.json")).read_text()) for name in ("own", "again")
    )
    assert own["backbones"] == again["backbones"]


def test_search_leaves_out_the_query_itself(go: Go) -> None:
    said = go("search ../run ../photos --query ../photos/03.png --top 20 --json --threads 1 --device cpu")
    names = [one["name"] for one in json.loads(said)]
    assert len(names) == 15
    assert "03.png" not in names


def test_a_classifier_from_few_labels_as_typed(place: Path, go: Go) -> None:
    settings = "--lr 0.001 --layer-decay 0.75 --epochs 1 --threads 1 --device cpu"
    said = go(f"finetune ../run ../photos --data.labels ../l.csv --out c --per-class 3 {settings}")
    for words in ("trained on 6 labelled pictures", "after SimCLR, beside from scratch: ", "next: headstart predict c"):
        assert words in " ".join(said.split()), said
    said = go("predict c ../photos --out p.csv --threads 1 --device cpu")
    assert "16 pictures" in said
    assert Path("p.csv").read_text().startswith("name,label,probability,distance,unlike\n00.png,")


def test_a_file_of_embeddings_stands_in_place_of_run_and_data(place: Path, go: Go) -> None:
    go("embed ../run --out kept.npz --threads 1 --device cpu --data.labels none")
    said = go("search kept.npz --query ../photos --top 1 --json --threads 1 --device cpu")
    assert [one["query"] for one in json.loads(said)] == [f"{i:02d}.png" for i in range(16)]
    go("select kept.npz -n 3 --threads 1 --device cpu --out chosen")
    Path("two.txt").write_text("../photos/03.png\n../photos/04.png\n")
    said = go("search kept.npz --query two.txt --top 1 --json --threads 1 --device cpu")
    assert [len(one["found"]) for one in json.loads(said)] == [1, 1], "every picture of a list is answered"
    chosen = json.loads(go("select kept.npz -n 3 --threads 1 --device cpu --out chosen --json"))
    assert len(chosen["label_next"]) == 3
    said = " ".join(go("embed kept.npz --threads 1 --device cpu").split())
    assert "16 pictures, 0 embedded now" in said
    assert "holds embeddings already" in go("search kept.npz ../photos --query ../photos/01.png", code=2)
    assert set(labels("kept.npz")) == {-1}
    go("embed ../run --out labelled.npz --threads 1 --device cpu")
    go("evaluate labelled.npz --name kept --threads 1 --device cpu")
    assert list((place / "run" / "evaluations").glob("kept*.json"))
