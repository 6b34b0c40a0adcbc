"""The report and the live page in a real browser, headless: `make browser`.

What can only be seen there: that nothing is asked of another machine, that the policy lets the page's own script run, that
every figure has a size and no text lies on another at the widths of a phone, a tablet and a collector, light and dark.
"""

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.records.run_sqlite import DATABASE
from coordinator.report.page import write
from coordinator.report.watch import LivePage, Server

RecordRun = Callable[..., Path]
pytestmark = pytest.mark.browser

WIDTHS = (400, 800, 1600)
# boxes of all texts that are seen, as far as they are not scrolled out of their table; of HTML, line by line
TEXTS = """() => {
  const found = [];
  const clip = (box, node) => {
    for (let one = node.parentElement; one; one = one.parentElement) {
      const style = getComputedStyle(one);
      if (style.overflowX === "visible" || one === document.documentElement) continue;
      const edge = one.getBoundingClientRect();
      box = { left: Math.max(box.left, edge.left), right: Math.min(box.right, edge.right), top: box.top, bottom: box.bottom };
    }
    return box;
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (!node.data.trim() || node.parentElement.closest("script, style, title, .hidden, #pulse, pre")) continue;
    if (!node.parentElement.checkVisibility({ contentVisibilityAuto: true, visibilityProperty: true })) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const svg = node.parentElement.closest("svg");
    for (const box of svg ? [node.parentElement.getBoundingClientRect()] : range.getClientRects()) {
      const seen = clip(box, node);
      if (seen.right - seen.left > 1 && seen.bottom - seen.top > 1)
        found.push([node.data.trim().slice(0, 40), seen.left, seen.top + scrollY, seen.right, seen.bottom + scrollY]);
    }
  }
  return found;
}"""
SIZES = """() => [...document.querySelectorAll("svg.chart, svg.map")].map((one) => {
  const box = one.getBoundingClientRect();
  return [box.width, box.height, one.querySelectorAll("path.line, path.mark, path.link").length];
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # without a path it is the one that `playwright install chromium-headless-shell` brought
        chromium = driver.chromium.launch(
            executable_path=os.environ.get("KAPPAHOP_CHROMIUM") or None, args=["--disable-gpu", "--no-zygote"]
        )
        yield chromium
        chromium.close()


class Visit:
    """A page, with all that it asked for and complained of."""

    def __init__(self, browser: Any, url: str, width: int, **options: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(url)

    def assert_sound(self, own: str) -> None:
        assert self.complaints == []
        assert [url for url in self.asked if not url.startswith((own, "data:"))] == []

    def assert_readable(self) -> None:
        assert self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
        sizes = self.page.evaluate(SIZES)
        assert sizes
        assert all(wide > 200 and tall > 40 and drawn for wide, tall, drawn in sizes), sizes
        texts = sorted(self.page.evaluate(TEXTS), key=lambda one: one[2])
        assert len(texts) > 50
        for place, (words, left, top, right, bottom) in enumerate(texts):
            for other, left_, top_, right_, bottom_ in texts[place + 1 :]:
                if top_ >= bottom - 2:
                    break
                # boxes of a line are taller than its letters: two in three may not be shared
                shared = min(bottom, bottom_) - max(top, top_)
                beside = right <= left_ + 1 or right_ <= left + 1
                assert beside or shared <= 0.34 * min(bottom - top, bottom_ - top_), (words, other)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory, recorded: RecordRun) -> Path:
    """Two graphs, three κ, two seeds, with costs, ages and losses."""
    root = tmp_path_factory.mktemp("sweep")
    for kind in ("line", "complete"):
        for kappa in (0, 1, 2):
            for seed in (0, 1):
                folder = recorded(
                    root / f"{kind}-{kappa}-{seed}",
                    f"topology.kind={kind}",
                    f"kappa={kappa}",
                    f"seed={seed}",
                    "env.name=safe_ant",
                    "env.partition=2x4",
                    "algorithm.cost_limit=0.4",
                    returns=[10.0 * kappa + i + seed for i in range(20)],
                    round_bytes=[400 * kappa] * 10,
                )
                with closing(sqlite3.connect(folder / DATABASE)) as database:
                    database.execute("UPDATE traffic SET messages = 100, dropped = 5, loss = 3, late = 2 WHERE plane = 'peer'")
                    database.execute("INSERT INTO ages SELECT round, 0, 1, 10, 0, 0.01 * round, 1.0 FROM rounds WHERE agent = 0")
                    database.execute("UPDATE episodes SET cost = 0.3 WHERE env_step % 20 = ?", (5 + 10 * seed,))
                    database.commit()
    return root


@pytest.fixture(scope="module")
def report(sweep: Path) -> str:
    write([sweep], sweep / "report.html")
    return (sweep / "report.html").as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_is_whole_and_readable(browser: Any, report: str, width: int, scheme: str) -> None:
    visit = Visit(browser, report, width, color_scheme=scheme)
    visit.assert_readable()
    assert len(visit.page.query_selector_all("svg.chart")) == 14
    assert len(visit.page.query_selector_all("svg.map")) == 6
    visit.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    visit.assert_readable()
    visit.assert_sound(report)
    assert len(visit.asked) == 1
    visit.page.close()


def test_the_report_is_readable_in_print(browser: Any, report: str) -> None:
    visit = Visit(browser, report, 700, color_scheme="dark")
    visit.page.emulate_media(media="print")
    visit.assert_readable()
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not visit.page.is_visible("#stretch")
    assert len(visit.page.pdf()) > 10_000
    visit.page.close()


# ------------------------------------------------------------------ charts that answer

DRAWN = (
    "(id) => [...document.getElementById(id).querySelectorAll('path.line, path.mark')].map((one) => one.getAttribute('class'))"
)
CLIPBOARD = "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { ... } } })"
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
TICKS = "(id) => [...document.getElementById(id).querySelectorAll('text.tick')].map((one) => one.textContent)"


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory, recorded: RecordRun) -> str:
    """Two graphs, two κ, one seed each: twelve rounds, returns that rise by one a round, costs above 0."""
    root = tmp_path_factory.mktemp("learnt")
    for kind in ("line", "complete"):
        for kappa in (0, 1):
            recorded(
                root / f"{kind}-{kappa}",
                f"topology.kind={kind}",
                f"kappa={kappa}",
                "env.name=stochastic_game",
                returns=[float(100 * kappa + i // 2 - 3) for i in range(24)],
                round_bytes=[100 * kappa] * 12,
            )
            with closing(sqlite3.connect(root / f"{kind}-{kappa}" / DATABASE)) as database:
                database.execute("UPDATE rounds SET wall_s = 1 + round")
                database.commit()
    write([root], root / "report.html")
    return (root / "report.html").as_uri()


@pytest.fixture
def visit(browser: Any, learnt: str) -> Iterator[Visit]:
    made = Visit(browser, learnt, 1600)
    yield made
    made.assert_sound(learnt)
    made.page.close()


def values(page: Any, place: int = 0) -> str:
    return str(page.locator(f"figure:has(#return-{place}-chart) output.values").text_content())


def across(page: Any, chart: str, part: float) -> tuple[float, float]:
    """A place within the axes of a chart, as far across as a part of them."""
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    box = page.evaluate(
        "(id) => { const box = document.getElementById(id).querySelector('svg').getBoundingClientRect(); "
        "return [box.left, box.width, box.top + box.height / 2]; }",
        chart,
    )
    return box[0] + part * box[1], box[2]


def test_the_pointer_reads_values(visit: Visit) -> None:
    page = visit.page
    assert values(page) == ""
    page.mouse.move(*across(page, "return-0-chart", 0.5))
    assert values(page) == "environment steps 60: κ=0 2; κ=1 102.0"
    assert page.locator("#return-0-chart .dot").count() == 2
    page.mouse.move(2, 2)
    assert values(page) == ""


def test_the_keyboard_reads_values(visit: Visit) -> None:
    page = visit.page
    page.focus("#return-0-chart")
    assert values(page) == "environment steps 120: κ=0 7.667; κ=1 107.7"
    for key, steps in (("ArrowLeft", 110), ("Home", 10), ("ArrowRight", 20), ("End", 120), ("ArrowRight", 120)):
        page.keyboard.press(key)
        assert values(page).startswith(f"environment steps {steps}: "), key
    page.focus("#return-x")
    assert values(page) == ""


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_the_legend_switches_series_in_all_panels_of_a_section(visit: Visit, by: str) -> None:
    page = visit.page
    entry = page.locator("figure:has(#return-0-chart) .legend button", has_text="κ=1")

    def press() -> None:
        if by == "pointer":
            entry.click()
        else:
            entry.focus()
            page.keyboard.press("Space")

    press()
    assert [page.evaluate(DRAWN, f"return-{place}-chart") for place in (0, 1)] == [["line s0"]] * 2
    assert len(page.evaluate(DRAWN, "prices-0-chart")) == 2, "other sections keep theirs"
    assert page.locator("#return .legend [aria-pressed=false], .figures[data-key=return] [aria-pressed=false]").count() == 2
    page.focus("#return-0-chart")
    assert "κ=1" not in values(page)
    press()
    assert [page.evaluate(DRAWN, f"return-{place}-chart") for place in (0, 1)] == [["line s0", "line s1"]] * 2


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_curves_are_drawn_against_steps_bytes_and_both_times(visit: Visit, by: str) -> None:
    page = visit.page
    ends = {"steps": "environment steps 120", "bytes": "wire bytes between agents 1200", "virtual": "virtual seconds 30",
            "wall": "seconds of wall time 12"}  # fmt: skip
    for x, told in ends.items():
        if by == "pointer":
            page.evaluate("document.activeElement.blur()")
            page.select_option("#return-x", x)
        elif x != "steps":
            page.focus("#return-x")
            page.keyboard.press("ArrowDown")
        page.focus("#return-0-chart")
        assert values(page) == f"{told}: κ=0 7.667; κ=1 107.7"
    page.select_option("#return-x", "bytes")
    assert sorted(page.evaluate(DRAWN, "return-0-chart")) == ["line s1", "mark s0"], "what sends nothing is a mark at 0"


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_axes_are_linear_or_logarithmic(visit: Visit, by: str) -> None:
    page = visit.page

    def toggle(box: str) -> None:
        if by == "pointer":
            page.click(box)
        else:
            page.focus(box)
            page.keyboard.press("Space")

    linear = page.evaluate(TICKS, "cost-0-chart")
    toggle("#cost-log-x")
    assert {"10", "20", "50", "100"} <= set(page.evaluate(TICKS, "cost-0-chart"))
    centres = [page.locator("#cost-0-chart text.tick", has_text=re.compile(f"^{x}$")).bounding_box() for x in (10, 20, 50, 100)]
    at = [box["x"] + box["width"] / 2 for box in centres]
    assert at[1] - at[0] == pytest.approx(at[3] - at[2], abs=1.5), "a factor is as wide anywhere"
    said = (
        "(key) => document.querySelector(`.figures[data-key=${key}]`).previousElementSibling.querySelector('.said').textContent"
    )
    assert page.evaluate(said, "cost") == "Points at 0 are not on a log axis."
    toggle("#cost-log-y")
    assert page.evaluate(DRAWN, "cost-0-chart") == ["line s0", "line s1"]
    toggle("#cost-log-x")
    toggle("#cost-log-y")
    assert page.evaluate(TICKS, "cost-0-chart") == linear
    assert page.is_disabled("#return-log-y"), "a return is below 0"
    assert page.get_attribute("#return-log-y", "title") == "needs values above 0"


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_smoothing_says_its_window(visit: Visit, by: str) -> None:
    page = visit.page
    if by == "pointer":
        page.select_option("#return-window", "5")
    else:
        page.focus("#return-window")
        page.keyboard.press("ArrowDown")
    said = page.locator(".tools:has(#return-x) output").text_content()
    assert said == "Each point is the mean of itself and the 4 points before it; intervals are not drawn."
    page.focus("#return-0-chart")
    assert values(page) == "environment steps 120: κ=0 5.867; κ=1 105.9"


def test_where_curves_are_smoothed_there_is_no_band(browser: Any, report: str) -> None:
    visit = Visit(browser, report, 800)
    bands = visit.page.locator("#return-0-chart path.band")
    assert bands.count() == 3
    visit.page.select_option("#return-window", "5")
    assert bands.count() == 0
    visit.page.select_option("#return-window", "1")
    assert bands.count() == 3
    visit.page.close()


def shown_range(page: Any, chart: str) -> tuple[float, float]:
    read = []
    page.focus(f"#{chart}")
    for key in ("Home", "End"):
        page.keyboard.press(key)
        read.append(float(values(page, int(chart.split("-")[1])).split(":")[0].split()[-1]))
    return read[0], read[1]


def test_the_pointer_zooms_into_what_it_drags_over_and_a_double_click_shows_all(visit: Visit) -> None:
    page = visit.page
    page.mouse.move(*across(page, "return-0-chart", 0.3))
    page.mouse.down()
    page.mouse.move(*across(page, "return-0-chart", 0.5))
    assert page.locator("#return-0-chart .span").count() == 1
    page.mouse.move(*across(page, "return-0-chart", 0.6))
    page.mouse.up()
    assert shown_range(page, "return-0-chart") == shown_range(page, "return-1-chart") == (40, 70)
    assert page.locator(".tools:has(#return-x) output").text_content() == "A part of the axis is shown."
    page.mouse.dblclick(*across(page, "return-0-chart", 0.5))
    assert shown_range(page, "return-0-chart") == (10, 120)


@pytest.mark.parametrize("by", ["keys", "pointer on buttons", "keyboard on buttons"])
def test_zoom_in_out_and_whole(visit: Visit, by: str) -> None:
    page = visit.page

    def zoom(button: str, key: str) -> None:
        if by == "keys":
            page.focus("#return-0-chart")
            page.keyboard.press("End")
            page.keyboard.press(key)
        elif by == "pointer on buttons":
            page.click(f"#return-{button}")
        else:
            page.focus(f"#return-{button}")
            page.keyboard.press("Enter")

    zoom("in", "+")
    half = (100, 120) if by == "keys" else (30, 90)
    low, high = shown_range(page, "return-0-chart")
    assert (low >= half[0] - 10, high) == (True, half[1])
    assert low > 10
    zoom("out", "-")
    assert shown_range(page, "return-0-chart")[0] <= low
    zoom("in", "+")
    zoom("whole", "0")
    assert shown_range(page, "return-0-chart") == (10, 120)


@pytest.mark.parametrize("by", ["pointer", "keyboard"])
def test_data_are_copied_as_csv(visit: Visit, by: str) -> None:
    page = visit.page
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async (text) => { window.copied = text; } } })"
    )
    page.select_option("#return-x", "virtual")
    page.click("figure:has(#return-0-chart) .legend button >> nth=0")
    if by == "pointer":
        page.click("#return-0-copy")
    else:
        page.focus("#return-0-copy")
        page.keyboard.press("Enter")
    page.wait_for_selector("#return-0-copy:has-text('copied 12 rows')")
    rows = page.evaluate("copied").splitlines()
    assert (rows[0], rows[1], rows[-1]) == ("name,virtual,y,low,high", '"κ=1",2.5,97,,', '"κ=1",30,107.667,,')


def test_where_copying_is_refused_the_rows_are_shown(visit: Visit) -> None:
    page = visit.page
    page.evaluate(
        "Object.defineProperty(navigator, 'clipboard', { value: { writeText: async () => { throw new Error('no'); } } })"
    )
    page.click("#return-0-copy")
    page.wait_for_selector("#return-0-copy:has-text('24 rows, below')")
    assert page.input_value("figure:has(#return-0-chart) textarea").startswith("name,steps,y,low,high\n")


def test_a_chart_is_as_wide_as_its_place(browser: Any, recorded: RecordRun, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", returns=[1.0, 2.0] * 4)
    write([folder], folder / "report.html")
    for width in (400, 1600):
        visit = Visit(browser, (folder / "report.html").as_uri(), width)
        box = visit.page.locator("#return-0-chart").bounding_box()
        assert box["width"] > 0.85 * width
        assert box["height"] <= 400
        visit.page.set_viewport_size({"width": 700, "height": 900})
        visit.page.evaluate(FRAMES)
        assert visit.page.evaluate("document.getElementById('return-0-chart').viewBox.baseVal.width") < 700
        visit.assert_readable()
        visit.page.close()


def test_the_slider_shows_what_links_carried_in_a_stretch(browser: Any, recorded: RecordRun, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", returns=[1.0] * 8, round_bytes=[600, 0, 300, 600])
    write([folder], folder / "report.html")
    visit = Visit(browser, (folder / "report.html").as_uri(), 800)
    link = visit.page.query_selector("path.link[data-levels='6036']")
    assert link is not None
    whole = link.get_attribute("class")
    seen = []
    for place in (1, 2, 3, 0):
        visit.page.fill("#stretch", str(place))
        seen.append((visit.page.text_content("output[for=stretch]"), link.get_attribute("class")))
    assert seen == [("round 1", "link w6"), ("round 2", "link w0"), ("round 3", "link w3"), ("whole run", whole)]
    visit.assert_sound("file:")
    visit.page.close()


@pytest.mark.parametrize("width", [320, *WIDTHS])
def test_the_label_of_the_slider_is_a_line(browser: Any, report: str, width: int) -> None:
    visit = Visit(browser, report, width)
    for words in (".stretch label", ".stretch output"):
        box, line = visit.page.evaluate(
            "(which) => { const one = document.querySelector(which); return [one.getBoundingClientRect().height, "
            "1.5 * parseFloat(getComputedStyle(one).fontSize)]; }",
            words,
        )
        assert box < 1.5 * line, (words, box)
    slider = visit.page.query_selector("#stretch").bounding_box()
    assert slider["width"] >= 90
    assert slider["x"] + slider["width"] <= width
    visit.page.close()


def test_the_live_page_follows_the_run_to_its_end(browser: Any, recorded: RecordRun, tmp_path: Path) -> None:
    folder = recorded(tmp_path / "run", "budget.env_steps=80", returns=[None, 1.0] * 4, round_bytes=[100] * 4, ended=False)
    with Server(LivePage(folder), 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            visits = [Visit(browser, server.url, width) for width in WIDTHS]
            for visit in visits:
                visit.page.wait_for_selector("#pulse:has-text('live, last')")
                visit.assert_readable()
                visit.page.evaluate("document.querySelector('#cell-0').open = false")
                visit.page.select_option("#return-x", "virtual")
                visit.page.focus("#return-0-chart")
            with closing(sqlite3.connect(folder / DATABASE)) as database:
                database.execute("INSERT INTO episodes VALUES (4, 40, 1, 99.0, 0.5, '[]', 5, '{}')")
                database.commit()
            for visit in visits:
                visit.page.wait_for_selector(".answer:has-text('Return 50.0')")
                assert not visit.page.evaluate("document.querySelector('#cell-0').open"), "what was shut stays shut"
                assert visit.page.input_value("#return-x") == "virtual", "what was chosen stays chosen"
                assert visit.page.evaluate("document.activeElement.id") == "return-0-chart"
            figures = {"env_steps": 80, "return_mean": 50.0, "cost_mean": 0.5, "cost_limit": "null", "bytes_per_agent_step": 1.0}
            with closing(sqlite3.connect(folder / DATABASE)) as database:
                database.executemany("INSERT INTO meta VALUES (?, ?)", [(key, str(value)) for key, value in figures.items()])
                database.commit()
            for visit in visits:
                visit.page.wait_for_selector("#pulse:text-is('the run has ended')")
                visit.assert_sound(server.url)
                visit.page.close()
        finally:
            server.shutdown()
            thread.join()
