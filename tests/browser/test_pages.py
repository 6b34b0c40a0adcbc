"""The report and the live page in a real browser, headless: `make browser`.

What can only be seen there: that nothing is asked of another machine, that the policy lets the page's own script run, that
every figure has a size and no text lies on another at the widths of a phone, a tablet and a collector, light and dark.
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from coordinator.report.page import write
from coordinator.report.watch import LivePage, Server
from coordinator.run.run_sqlite import DATABASE

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
                    returns=[None if i % 2 else 10.0 * kappa + i + seed for i in range(20)],
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
    assert len(visit.page.query_selector_all("svg.chart")) == 10
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
        seen.append((visit.page.text_content("output"), link.get_attribute("class")))
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
            with closing(sqlite3.connect(folder / DATABASE)) as database:
                database.execute("INSERT INTO episodes VALUES (4, 40, 1, 99.0, 0.5, '[]', 5)")
                database.commit()
            for visit in visits:
                visit.page.wait_for_selector(".answer:has-text('Return 50.0')")
                assert not visit.page.evaluate("document.querySelector('#cell-0').open"), "what was shut stays shut"
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
