"""The page in a real browser: nothing on the console, nothing from the network, sorting, filtering, no overflow.

Needs Playwright's Python package and a Chromium; skipped without them.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headstart.report import write_report

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 600_000  # milliseconds; a loaded machine takes longer than the library's half minute
VIEWS = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET, timeout=PATIENCE)
        yield launched
        launched.close()


def _open(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    noise: list[str] = []
    own = ("data:", path.as_uri())
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.extend(u for u in [request.url] if not u.startswith(own)))
    page.goto(path.as_uri())
    return page, noise


def _overflow(page: Any) -> int:
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


@pytest.mark.parametrize(("width", "scheme"), VIEWS)
def test_a_study_of_765_runs(browser: Any, authors_report: Path, width: int, scheme: str) -> None:
    page, noise = _open(browser, authors_report, width, scheme)
    assert noise == []
    assert _overflow(page) <= 0
    assert page.locator("svg.figure").count() > 20
    small = page.evaluate("Math.min(...[...document.querySelectorAll('svg.figure')].map(s => s.clientWidth / 360))")
    assert small > 0.75, "letters of figures stay readable"
    page.context.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_single_run(browser: Any, make_run: Callable[..., Path], tmp_path: Path, width: int) -> None:
    page, noise = _open(browser, write_report(make_run(tmp_path / "run")), width, "light")
    assert noise == []
    assert _overflow(page) <= 0
    assert page.evaluate("[...document.images].every(i => i.naturalWidth > 0)")
    page.context.close()


@pytest.mark.parametrize(("width", "beside"), [(1280, True), (390, False)])
def test_two_figures_that_stand_alone_share_a_wide_screen(
    browser: Any, make_run: Callable[..., Path], tmp_path: Path, width: int, beside: bool
) -> None:
    for seed in range(3):
        make_run(tmp_path / "runs" / f"a{seed}", seed=seed, accuracy=0.8 + seed / 100)
        make_run(tmp_path / "runs" / f"r{seed}", init="random", frozen=False, seed=seed)
    page, _ = _open(browser, write_report(tmp_path), width, "light")
    one, two, below = (page.locator(f"section#{name}").bounding_box() for name in ("answer", "accuracy", "training"))
    assert (one["y"] == two["y"]) is beside
    assert below["y"] > max(one["y"] + one["height"], two["y"])
    assert _overflow(page) <= 0
    page.context.close()


def test_opening_765_runs_costs_little(browser: Any, authors_report: Path) -> None:
    """Counted, not timed: what there is to read and to lay out, a row of every run included."""
    page, _ = _open(browser, authors_report, 1280, "light")
    elements = page.evaluate("document.getElementsByTagName('*').length")
    page.context.close()
    assert authors_report.stat().st_size < 2_000_000
    assert elements < 40_000


def test_sorts_and_filters(browser: Any, authors_report: Path) -> None:
    page, _ = _open(browser, authors_report, 1280, "light")
    grid = page.locator("#grid-runs")
    column = 2  # accuracy
    first = grid.locator("tbody tr:not([hidden]) td:nth-child(3)").first

    def shown() -> list[float]:
        return page.eval_on_selector_all(
            f"#grid-runs tbody tr:not([hidden]) td:nth-child({column + 1})", "cells => cells.map(c => +c.textContent)"
        )

    button = grid.locator("thead button").nth(column)
    button.click()
    assert shown() == sorted(shown())
    button.click()
    assert shown() == sorted(shown(), reverse=True)
    assert first.text_content() == "89.0"
    grid.locator("select").first.select_option("CIFAR100")
    assert (len(shown()), max(shown())) == (153, 23.6)
    grid.locator("[data-find]").fill("trainable autoencoder")
    assert len(shown()) == 9
    assert grid.locator("output").text_content() == "9 of 765 rows"
    grid.locator("[data-find]").fill("")
    grid.locator("select").first.select_option("")
    assert len(shown()) == 765
    page.context.close()


def test_prints_without_controls(browser: Any, authors_report: Path, tmp_path: Path) -> None:
    page, _ = _open(browser, authors_report, 1280, "dark")
    page.emulate_media(media="print")
    assert not page.locator(".controls").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.context.close()
