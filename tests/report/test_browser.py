"""A page in a real browser, Chromium without a screen, which opens it from the disk."""

import dataclasses
import shutil

import numpy as np
import pytest
from small_runs import CONFIG

from rljax import report, sweep
from rljax.loggers import tables

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn")]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
FIRST = "figure.chart >> nth=0"


@pytest.fixture(scope="module")
def path(run_dir):
    return report.write(run_dir / "report.html", [run_dir])


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("no Chromium here")
    with api.sync_playwright() as playwright:
        # Root, as which tests often run in containers, has no sandbox.
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture
def opened(browser, path):
    """Opens the page with a context's options; at the end nothing was said or asked for."""
    told, contexts = [], []

    def open_page(**how):
        context = browser.new_context(**how)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: told.append(request.url))
        page.goto(path.as_uri())
        contexts.append(context)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in told if not text.startswith("data:")] == [path.as_uri()] * len(
        contexts
    )


def test_curves_are_drawn(opened, run_dir):
    page = opened(viewport=dict(width=1200, height=800))
    box = page.locator(f"{FIRST} >> .area").bounding_box()
    for i in range(3):
        line = page.locator(f"{FIRST} >> .area path[data-line='{i}']:not(.band)").bounding_box()
        assert line["width"] > 0.9 * box["width"]
        assert line["height"] > 0.1 * box["height"]
        assert line["y"] >= box["y"] - 1
        assert line["y"] + line["height"] <= box["y"] + box["height"] + 1
    assert page.locator("img").evaluate("image => image.complete && image.naturalWidth") > 100


def test_a_click_hides_a_seed_and_another_shows_it(opened):
    page = opened()
    line = page.locator(f"{FIRST} >> .area path[data-line='1']")
    button = page.get_by_role("button", name="seed 5").first
    assert line.is_visible()
    button.click()
    assert not line.is_visible()
    assert button.get_attribute("aria-pressed") == "false"
    button.click()
    assert line.is_visible()
    together = page.get_by_role("button", name="all seeds").first
    button.click()
    assert together.get_attribute("aria-pressed") == "mixed"
    together.click()
    assert line.is_visible()
    together.click()
    assert not line.is_visible()
    assert not page.locator(f"{FIRST} >> .area path[data-line='2']").is_visible()
    assert page.locator(f"{FIRST} >> .area path[data-line='0']").first.is_visible()


def test_pointing_tells_the_numbers(opened, run_dir):
    page = opened(viewport=dict(width=1200, height=800))
    area, tooltip = (page.locator(f"{FIRST} >> {name}") for name in (".area", ".tooltip"))
    assert not tooltip.is_visible()
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    page.mouse.move(box["x"] + 0.999 * box["width"], box["y"] + 20)
    assert tooltip.is_visible()
    metrics = tables.read_metrics(run_dir)
    last = metrics.groupby("seed").last()
    text = tooltip.inner_text()
    assert f"{last['env_steps'].max():,} environment steps" in text
    for seed, value in last["episodic_return"].items():
        shown = float(text.split(f"seed {seed}: ")[1].split()[0].replace(",", ""))
        np.testing.assert_allclose(shown, value, rtol=1e-4)
    page.mouse.move(5, 5)
    assert not tooltip.is_visible()
    area.focus()
    page.keyboard.press("Home")
    assert tooltip.is_visible()
    steps = metrics["env_steps"].unique()
    assert f"{steps[0]:,} environment steps" in tooltip.inner_text()
    page.keyboard.press("ArrowRight")
    assert f"{steps[1]:,} environment steps" in tooltip.inner_text()
    assert f"{steps[1]:,}" in area.get_attribute("aria-valuetext")


@pytest.mark.parametrize("width", [360, 1200])
def test_a_page_is_as_wide_as_its_window(opened, width):
    page = opened(viewport=dict(width=width, height=800), has_touch=width < 500)
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 500:
        page.locator(f"{FIRST} >> .area").tap()
        assert page.locator(f"{FIRST} >> .tooltip").is_visible()


def test_dark_and_light(opened):
    found = {}
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        ask = "getComputedStyle(document.body)"
        found[scheme] = [page.evaluate(f"{ask}.{name}") for name in ("backgroundColor", "color")]
    assert found["light"] == ["rgb(255, 255, 255)", "rgb(26, 28, 32)"]
    assert found["dark"] == ["rgb(20, 22, 26)", "rgb(232, 234, 238)"]


def test_on_paper_all_is_unfolded(opened, tmp_path):
    page = opened(color_scheme="dark")
    assert not page.get_by_text("max_grad_norm").is_visible()
    assert page.pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.get_by_text("max_grad_norm").is_visible()
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_without_scripts_the_curves_are_there(opened):
    page = opened(java_script_enabled=False)
    assert page.locator(f"{FIRST} >> .area path[data-line='1']").bounding_box()["width"] > 100


@pytest.fixture(scope="module")
def sweep_page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    points = [{"learning_rate": 0.01 * 2**i, "hidden_sizes": (8,)} for i in range(10)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rljax.sweep.report._draw", lambda *_: [])
        config = dataclasses.replace(CONFIG, total_timesteps=640)
        sweep.run(config, points, seeds=[0], run_dir=folder / "sweep", eval_episodes=2)
    return report.write(folder / "report.html", [folder / "sweep"])


def test_trials_of_a_sweep_can_be_pointed_at(browser, sweep_page):
    told = []
    page = browser.new_page(viewport=dict(width=1200, height=800))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.goto(sweep_page.as_uri())
    figure = page.locator("figure.chart", has_text="Final return against learning_rate")
    figure.scroll_into_view_if_needed()
    places = figure.locator(".area svg path.points").get_attribute("d")
    x, y = map(float, places.split("h0")[3].removeprefix("M").split())
    box = figure.locator(".area").bounding_box()
    page.mouse.move(box["x"] + x * box["width"] / 1000, box["y"] + y * box["height"] / 1000)
    assert "learning_rate = 0.08" in figure.locator(".tooltip").inner_text()
    assert "trials: " in figure.locator(".tooltip").inner_text()
    page.close()
    assert not told
