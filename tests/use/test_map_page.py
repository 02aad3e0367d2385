"""The map in a real browser, as a page of its own and in a run's: it pans, zooms, shows, selects and copies, with a
mouse, a finger and a keyboard.

Needs Playwright's Python package and a Chromium; skipped without them.
"""

import base64
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import open_images
from headstart.data.sheets import picture
from headstart.engine.device import choose
from headstart.evaluate.map import by_class, by_number, of_pictures
from headstart.records.config import DataConfig
from headstart.report import picture_map
from headstart.use import mapped
from headstart.use.embeddings import Embeddings, of_images
from headstart.use.load import Run
from headstart.use.mapped import write_map
from tests.report.test_browser import PATIENCE, browser

__all__ = ["browser"]


@pytest.fixture(scope="module")
def within(run: Run, photos: Path) -> Embeddings:
    return of_images(run, run.open_images(photos), choose("cpu", "float32", threads=1))


@pytest.fixture(scope="module")
def file(within: Embeddings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("map")
    write_map(within, out)
    return out / "map.html"


@pytest.fixture(params=[("map.html", 1280), ("map.html", 390), ("report.html", 1280), ("report.html", 390)])
def page(browser: Any, file: Path, run: Run, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The page, which must say nothing on the console, fetch nothing and fit the window."""
    name, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, has_touch=True)
    context.set_default_timeout(PATIENCE)
    opened, noise = context.new_page(), []
    opened.on("console", lambda message: noise.append(message.text))
    opened.on("pageerror", lambda error: noise.append(str(error)))
    opened.on(
        "request", lambda asked: noise.append(asked.url) if not asked.url.startswith(("data:", "file:")) else None
    )
    opened.goto((file if name == "map.html" else run.folder.report).as_uri())
    opened.locator("canvas").scroll_into_view_if_needed()
    yield opened
    assert noise == []
    assert opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    context.close()


def held(page: Any) -> dict[str, Any]:
    """What the page draws."""
    return json.loads(page.locator(".map .data").text_content())


def place(page: Any, i: int) -> tuple[float, float]:
    """Where a picture lies in the window."""
    box = page.locator("canvas").bounding_box()
    x, y = page.evaluate(f"walked.place({i})")
    return box["x"] + x, box["y"] + y


def until(page: Any, holds: str) -> None:
    """Wait; the page's own rule lets no script evaluate text, as Playwright's waiting would."""
    for _ in range(600):
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(holds)


def paint(page: Any) -> str:
    return page.evaluate("document.querySelector('canvas').toDataURL()")


def test_a_drag_moves_the_map_and_a_wheel_zooms_where_it_points(page: Any) -> None:
    first, before = place(page, 0), paint(page)
    page.mouse.move(*first)
    page.mouse.down()
    page.mouse.move(first[0] + 40, first[1] + 25, steps=5)
    page.mouse.up()
    assert place(page, 0) == pytest.approx((first[0] + 40, first[1] + 25), abs=0.5)
    page.wait_for_timeout(100)  # it is drawn with the next frame
    assert paint(page) != before
    page.mouse.wheel(0, -400)
    until(page, "walked.view().scale > 2")
    assert place(page, 0) == pytest.approx((first[0] + 40, first[1] + 25), abs=3)  # wheels point at whole pixels
    page.get_by_role("button", name="Show the whole map").click()
    assert place(page, 0) == pytest.approx(first, abs=0.5)


def test_pointing_at_a_dot_shows_its_picture_and_name(page: Any) -> None:
    page.get_by_role("button", name="Show pictures").click()
    page.mouse.move(*place(page, 7))
    tip = page.locator(".tip")
    shown = page.evaluate("walked.here()")  # the nearest: dots may lie on each other
    assert place(page, shown) == pytest.approx(place(page, 7), abs=3)
    name = held(page)["names"][shown]
    assert name in tip.text_content()
    assert name in page.locator(".said").text_content()
    until(page, "document.querySelector('.tip img').naturalWidth > 0")
    box = tip.bounding_box()
    assert min(box["x"], box["y"]) >= 0
    assert box["x"] + box["width"] <= page.viewport_size["width"]
    assert box["y"] + box["height"] <= 900
    page.mouse.move(1, 1)
    assert not tip.is_visible()


def test_a_lasso_selects_what_lies_inside(page: Any) -> None:
    mode = page.get_by_role("button", name="Select with a lasso")
    mode.click()
    assert mode.get_attribute("aria-pressed") == "true"
    box = page.locator("canvas").bounding_box()
    middle = box["x"] + box["width"] / 2
    corners = [(box["x"] + 1, box["y"] + 1), (middle, box["y"] + 1), (middle, box["y"] + box["height"] - 2)]
    corners.append((box["x"] + 1, box["y"] + box["height"] - 2))
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in corners[1:]:
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    names = held(page)["names"]
    left = {name for i, name in enumerate(names) if place(page, i)[0] < middle}
    chosen = page.locator(".map textarea").input_value().split("\n")
    assert 0 < len(left) < len(names)
    assert set(chosen) == left
    assert len(chosen) == len(left)
    assert page.locator(".count").text_content() == f"{len(left)} picture{'s' * (len(left) != 1)} selected"
    page.get_by_role("button", name="Show the whole map").click()  # which loses nothing
    assert set(page.locator(".map textarea").input_value().split("\n")) == left
    page.get_by_role("button", name="Copy names").click()
    assert page.evaluate("getSelection().toString() || document.activeElement.value").split("\n") == chosen
    page.get_by_role("button", name="Clear selection").click()
    assert page.locator(".map textarea").input_value() == ""


def test_arrow_keys_walk_and_enter_selects(page: Any) -> None:
    page.locator("canvas").focus()
    seen = set()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
        seen.add(page.evaluate("walked.here()"))
    assert -1 not in seen
    assert len(seen) > 1
    page.keyboard.press("Enter")
    assert page.locator(".map textarea").input_value() == held(page)["names"][page.evaluate("walked.here()")]
    page.keyboard.press("+")
    assert page.evaluate("walked.view().scale") == pytest.approx(1.4)


def test_two_fingers_zoom_and_a_tap_shows(page: Any) -> None:
    box = page.locator("canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def send(kind: str, *points: tuple[float, float]) -> None:
        fingers = [{"x": a, "y": b, "id": i} for i, (a, b) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})

    send("touchStart", (x - 30, y), (x + 30, y))
    for apart in range(35, 61, 5):
        send("touchMove", (x - apart, y), (x + apart, y))
    send("touchEnd")
    until(page, "walked.view().scale > 1.5")
    page.get_by_role("button", name="Show the whole map").click()
    page.touchscreen.tap(*place(page, 3))
    until(page, "walked.here() >= 0 && !document.querySelector('.tip').hidden")


def test_colours_have_a_key(page: Any, within: Embeddings) -> None:
    key = page.locator(".key li")
    assert key.all_text_contents() == within.classes
    before = paint(page)
    page.locator(".colour").select_option("similarity to the nearest")
    assert key.count() == 1
    assert paint(page) != before
    page.locator(".map summary").click()
    until(page, f"document.querySelector('.map details tbody')?.rows.length === {len(held(page)['names'])}")
    assert page.locator(".map details th").all_text_contents()[:2] == ["name", "class"]


def test_a_page_longer_than_its_map_scrolls_until_the_map_is_clicked(page: Any) -> None:
    page.mouse.move(*place(page, 0))
    page.mouse.wheel(0, -120)
    page.wait_for_timeout(100)
    assert page.evaluate("walked.view().scale") == 1
    page.locator("canvas").focus()
    page.locator("canvas").scroll_into_view_if_needed()
    page.mouse.move(*place(page, 0))
    page.mouse.wheel(0, -120)
    until(page, "walked.view().scale > 1")


def test_pictures_stand_where_there_is_room_or_dots_alone(page: Any) -> None:
    page.wait_for_timeout(300)  # they are decoded, and drawn with the next frame
    pictures = paint(page)
    button = page.get_by_role("button", name="Show pictures")
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    dots = paint(page)
    assert 0 < 1.5 * covered(dots) < covered(pictures)
    button.click()
    assert paint(page) == pictures


def test_the_picture_on_top_is_the_one_pointed_at(page: Any) -> None:
    page.wait_for_timeout(300)
    for i in range(0, len(held(page)["names"]), 7):
        x, y = place(page, i)
        page.mouse.move(x, y)
        here = page.evaluate("walked.here()")
        left, top = place(page, here)
        assert max(abs(left - x), abs(top - y)) <= 26  # of half a picture with its frame


def test_the_keyboard_keeps_its_picture_in_sight_and_leaves_shortcuts_alone(page: Any) -> None:
    page.locator("canvas").focus()
    for key in ("+",) * 8 + ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp") * 3:
        page.keyboard.press(key)
    box, (x, y) = page.locator("canvas").bounding_box(), place(page, page.evaluate("walked.here()"))
    assert box["x"] <= x <= box["x"] + box["width"]
    assert box["y"] <= y <= box["y"] + box["height"]
    scale = page.evaluate("walked.view().scale")
    page.keyboard.press("Control+-")
    assert page.evaluate("walked.view().scale") == scale
    page.evaluate("document.activeElement.blur()")
    assert not page.locator(".tip").is_visible()


def covered(painted: str) -> float:
    """The share of a canvas on which something is drawn."""
    with Image.open(io.BytesIO(base64.b64decode(painted.split(",")[1]))) as canvas:
        return (np.asarray(canvas)[..., 3] > 0).mean()


def test_only_labelled_neighbours_can_be_of_another_class() -> None:
    labels, others = np.array([0, 0, 1, -1, -1]), np.array([[-1, 0, 1], [0, -1, -1], [0, 0, -1], [0, 0, 1], [0, 0, 0]])
    shown = by_class(labels, others, ["a", "b"])
    assert shown["neighbours of another class"] == {"values": [0.5, 0, 1, None, None], "low": 0, "high": 1}
    assert shown["class"] == {"values": labels.tolist(), "names": ["a", "b"]}


def test_a_large_set_is_drawn_in_part_and_told_whole(
    within: Embeddings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "DRAWN", 20)
    monkeypatch.setattr(mapped, "BATCH", 7)
    write_map(within, tmp_path)
    shown = json.loads((tmp_path / "map.html").read_text().split('type="application/json">')[1].split("</script>")[0])
    assert shown["of"] == 60
    assert {len(shown[name]) for name in ("names", "x", "y", "thumbnails")} == {20}
    assert {len(by["values"]) for by in shown["colours"].values()} == {20}
    assert shown["colours"]["class"]["values"] == [within.labels[within.names.index(name)] for name in shown["names"]]
    assert len((tmp_path / "map.csv").read_text().splitlines()) == 61
    table = pytest.importorskip("pandas").read_parquet(tmp_path / "map.parquet")
    assert table["name"].tolist() == within.names
    assert all(thumbnail[:2] == b"\xff\xd8" for thumbnail in table["thumbnail"])


def test_fiftyone_s_files_name_every_picture(within: Embeddings, file: Path) -> None:
    """As its importer of a FiftyOneImageClassificationDataset reads them: paths and labels by one key without an
    ending, a label a class's name, or with what else is known of the picture, or null."""
    data, labels = (json.loads((file.parent / "fiftyone" / f"{name}.json").read_text()) for name in ("data", "labels"))
    assert list(data) == list(labels["labels"]) == [f"{i:07d}" for i in range(60)]
    assert labels["classes"] is None
    assert all(Path(path).is_absolute() and Path(path).is_file() for path in data.values())
    rows = list(csv.DictReader((file.parent / "map.csv").open()))
    for i, (path, target) in enumerate(zip(data.values(), labels["labels"].values(), strict=True)):
        assert path.endswith(within.names[i])
        assert target["label"] == within.classes[within.labels[i]]
        assert target["attributes"]["name"] == within.names[i]
        assert target["attributes"]["x"] == pytest.approx(float(rows[i]["x"]), abs=1e-6)
        assert target["attributes"]["cluster"] == int(rows[i]["cluster"])


def test_pictures_without_labels_are_null_and_those_inside_files_are_left_out(
    within: Embeddings, tmp_path: Path
) -> None:
    write_map(replace(within, labels=np.full(60, -1)), tmp_path / "none")
    labels = json.loads((tmp_path / "none" / "fiftyone" / "labels.json").read_text())
    assert set(labels["labels"].values()) == {None}
    arrays = replace(within, data=DataConfig(sources=("digits",)))
    assert not any("fiftyone" in str(path) for path in write_map(arrays, tmp_path / "arrays").files)


def test_a_thousand_photographs_are_under_two_megabytes(grocery: Path) -> None:
    images = open_images(DataConfig(sources=(str(grocery),), size=64))
    names = [f"{name}{'x' * 10}" for name in images.names]
    draws = np.random.default_rng(0)
    colours = {
        **by_class(images.labels, images.labels[:, None], images.classes),
        "n": by_number(draws.random(len(names))),
    }
    shown = of_pictures(names, draws.random((len(names), 2)), colours, lambda i: picture(images, i), len(names))
    whole = picture_map.page(shown, "Map", [])
    assert len(images) > 980
    assert len(whole.encode()) * 1000 / len(images) < 2_000_000
