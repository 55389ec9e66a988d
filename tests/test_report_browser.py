"""The report in a real browser: Debian's ``chromium``, or Chrome, and its driver, by Selenium."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from pytest_mlchaos.core import entries
from pytest_mlchaos.core.entries import Line

from . import synthetic_journal
from .synthetic_journal import end

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")
pytest.importorskip("selenium")

from selenium import webdriver

from pytest_mlchaos.plugin.live import LiveReport
from pytest_mlchaos.reports import html
from pytest_mlchaos.reports.html.live import LivePage, server_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
AXE = os.environ.get("MLCHAOS_AXE")
"""The path of ``axe.min.js``, for the checks of accessibility."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"
    ),
]
BADGES = (
    "return [...document.querySelectorAll('.test:not([hidden]) h3')].map(one => one.textContent)"
)


class Browser:
    """A page in a browser, with what went over the network and into the console."""

    def __init__(self):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for argument in (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        self.driver.set_script_timeout(60)

    def open(self, address, *, width=1200, height=900, dark=False):
        """Load a page at this size and in this theme."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        self.media(dark=dark)
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(address)

    def media(self, *, dark=False, kind=""):
        """Set the theme of the system, and the kind of medium."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", media=kind, features=[scheme])

    def command(self, name, **arguments):
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def js(self, code, *arguments):
        """Run JavaScript, and return its result."""
        return self.driver.execute_script(code, *arguments)

    def all(self, selector):
        """The elements of a CSS selector."""
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def press(self, *keys):
        """Press keys, on whatever has the focus."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def paste(self):
        """Press Ctrl+V."""
        chain = webdriver.ActionChains(self.driver)
        chain.key_down(webdriver.Keys.CONTROL).send_keys("v").key_up(
            webdriver.Keys.CONTROL
        ).perform()

    def console(self):
        """The messages of the console so far."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """The addresses that were asked for so far."""
        messages = [
            json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")
        ]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]

    def until(self, condition, seconds=20):
        """Wait for something to become true, and return it."""
        deadline = time.monotonic() + seconds
        while not (found := condition()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    def shown(self):
        """The names of the tests that are not filtered out."""
        return self.js(BADGES)

    def test(self, name):
        """The element of a test."""
        return self.js(
            "return [...document.querySelectorAll('.test')].find(one => one.querySelector('h3').textContent === arguments[0])",
            name,
        )


@pytest.fixture(scope="module")
def browser():
    """One browser for all tests."""
    found = Browser()
    yield found
    found.driver.quit()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a report with every kind of test."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    html.write(synthetic_journal.session(), str(path))
    return path.as_uri()


@pytest.fixture
def page(browser, address):
    """The browser with the report, freshly loaded."""
    browser.open(address)
    browser.js("try { localStorage.clear() } catch {}")
    browser.open(address)
    return browser


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_page_loads_without_errors_or_requests(browser, address, width, dark):
    """Every part is opened. Nothing is fetched, and nothing is wider than the page."""
    browser.open(address, width=width, dark=dark)
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.until(lambda: not browser.all("[data-packed]"))
    assert browser.requests() == [address]
    assert browser.console() == []
    assert browser.js("return document.documentElement.scrollWidth") <= width
    assert len(browser.shown()) == 23


def test_outcomes_filter_the_tests(page):
    """Several may be chosen. The number of tests is announced."""
    page.one('[data-outcome="failed"].chip').click()
    assert len(page.shown()) == 6
    assert page.one(".shown").text == "6 of 23 tests"
    assert page.one('[data-outcome="failed"].chip').get_attribute("aria-pressed") == "true"
    page.one('[data-outcome="skipped"].chip').click()
    assert len(page.shown()) == 7
    assert "test_lost_gpu" in page.shown()
    page.one('[data-outcome="failed"].chip').click()
    page.one('[data-outcome="skipped"].chip').click()
    assert len(page.shown()) == 23
    assert page.one(".shown").text == ""


def test_search_finds_names_faults_and_causes(page):
    """All words must fit. Escape empties the field."""
    field = page.one(".find input")
    field.send_keys("latency_spike slo_under")
    assert page.shown() == ["test_slo_under_a_slow_feature_store"]
    field.clear()
    field.send_keys("momentum")
    assert page.shown() == ["test_loss_after_preemption"]
    field.send_keys(" nonsense")
    assert page.shown() == []
    assert page.one(".none").is_displayed()
    field.send_keys(webdriver.Keys.ESCAPE)
    assert len(page.shown()) == 23
    assert field.get_attribute("value") == ""


def test_fault_of_the_matrix_filters_the_tests(page):
    """A second click shows all tests again."""
    page.one('.pick[data-find="rank_failure"]').click()
    assert sorted(page.shown()) == ["test_elastic_restart", "test_lost_rank_fails_fast"]
    page.js("document.querySelector('.pick[data-find=\"rank_failure\"]').click()")
    assert len(page.shown()) == 23


def test_reproduction_is_copied(page):
    """The clipboard has the command, which is pasted into the search field."""
    page.js(
        "arguments[0].querySelector('details').open = true", page.test("test_loss_after_preemption")
    )
    buttons = page.test("test_loss_after_preemption").find_elements("css selector", ".copy")
    assert [button.get_attribute("aria-label") for button in buttons] == [
        "Copy the decorator",
        "Copy the command",
    ]
    buttons[1].click()
    page.until(lambda: buttons[1].text == "Copied")
    field = page.one(".find input")
    field.click()
    page.paste()
    assert field.get_attribute("value") == (
        'pytest tests/test_trainer.py::test_loss_after_preemption --mlchaos-replay "preempt(at=59)"'
    )


def test_copying_without_a_clipboard_selects_the_text(page):
    """A browser may refuse both ways."""
    page.js(
        "Object.defineProperty(navigator, 'clipboard', {value: undefined}); document.execCommand = () => false;"
        "arguments[0].querySelector('details').open = true",
        page.test("test_loss_after_preemption"),
    )
    button = page.test("test_loss_after_preemption").find_element("css selector", ".copy")
    button.click()
    page.until(lambda: button.text == "Press Ctrl+C")
    assert page.js("return getSelection().toString()") == "@chaos.preempt(at=59)"


def test_keyboard_reaches_and_opens_tests(page):
    """The first key press offers to skip to the tests. Arrows go from test to test."""
    keys = webdriver.Keys
    page.press(keys.TAB)
    assert page.js("return document.activeElement.textContent") == "Skip to the tests"
    page.press(keys.ENTER)
    assert page.js("return location.hash") == "#tests"
    focused = "return document.activeElement.closest('.test')?.querySelector('h3').textContent"
    for _ in range(20):
        page.press(keys.TAB)
        if page.js(focused):
            break
    names = page.shown()
    assert page.js(focused) == names[0]
    page.press(keys.ARROW_DOWN, keys.ARROW_DOWN)
    assert page.js(focused) == names[2]
    assert not page.js("return document.activeElement.parentElement.open")
    page.press(keys.ENTER)
    assert page.js("return document.activeElement.parentElement.open")
    page.press(keys.END)
    assert page.js(focused) == names[-1]
    page.press(keys.HOME, keys.ARROW_UP)
    assert page.js(focused) == names[0]
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_theme_follows_the_system_until_it_is_chosen(page):
    """The choice is kept for the next time."""
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.js(ground)
    page.media(dark=True)
    dark = page.js(ground)
    assert light != dark
    button = page.one(".theme")
    assert button.text == "Auto"
    button.click()
    assert (button.text, page.js(ground)) == ("Light", light)
    button.click()
    page.media(dark=False)
    assert (button.text, page.js(ground)) == ("Dark", dark)
    page.driver.refresh()
    assert page.js(ground) == dark
    page.js("localStorage.clear()")


def test_link_opens_its_test(page, address):
    """A link to a test can be sent to a colleague."""
    identity = page.test("test_any_moment").get_attribute("id")
    page.open(f"{address}#{identity}")
    assert page.js(
        "return arguments[0].querySelector('details').open", page.test("test_any_moment")
    )


def test_journal_unpacks_when_it_is_opened(page):
    """The lines are those of the journal."""
    test = page.test("test_lost_rank_fails_fast")
    page.js("for (const one of arguments[0].querySelectorAll('details')) one.open = true", test)
    pre = test.find_element("css selector", ".journal pre")
    lines = page.until(
        lambda: (
            pre.get_attribute("textContent").startswith("{") and pre.get_attribute("textContent")
        )
    )
    wanted = [
        line.text()
        for line in synthetic_journal.world(
            "tests/test_ddp.py::test_lost_rank_fails_fast", hung=True
        )
    ]
    assert sorted(lines.splitlines()) == sorted(wanted)


def test_print_shows_every_test_without_controls(page):
    """Paper is white, also in the dark."""
    page.media(dark=True, kind="print")
    page.js("dispatchEvent(new Event('beforeprint'))")
    assert not page.one(".filters").is_displayed()
    assert all(
        page.js("return [...document.querySelectorAll('.test > details')].map(one => one.open)")
    )
    assert (
        page.js("return getComputedStyle(document.documentElement).getPropertyValue('--paper')")
        == "#fff"
    )
    page.js("dispatchEvent(new Event('afterprint'))")
    opened = page.js("return document.querySelectorAll('.test > details[open]').length")
    assert opened == 1


def test_page_is_readable_without_scripts(browser, address):
    """Systems of CI often forbid them. Charts are there, and rows open."""
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(address)
        assert not browser.one(".filters").is_displayed()
        assert not browser.one(".copy").is_displayed()
        summary = browser.all(".test > details > summary")[2]
        chart = browser.all(".test")[2].find_element("css selector", ".fig")
        assert not chart.is_displayed()
        summary.click()
        assert chart.is_displayed()
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)


def test_symbols_and_marks_are_drawn(page):
    """A mark that refers to a missing symbol, or lies outside of its figure, would not be seen."""
    test = page.test("test_resumes_from_any_crash")
    page.js("arguments[0].querySelector('details').open = true", test)
    boxes = page.js(
        "return [...arguments[0].querySelectorAll('.plot use')].map(one => {"
        "const box = one.getBoundingClientRect(), plot = one.closest('.plot').getBoundingClientRect();"
        "return [box.width, box.left - plot.left, plot.right - box.right]})",
        test,
    )
    assert len(boxes) > 30
    assert all(width > 4 and left > -8 and right > -8 for width, left, right in boxes)


@pytest.mark.skipif(not AXE, reason="needs MLCHAOS_AXE, the path of axe.min.js of axe-core")
@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_no_barrier(browser, address, width, dark):
    """WCAG 2.2 A and AA, and best practices, with all that can be opened open."""
    browser.open(address, width=width, dark=dark)
    browser.js("for (const one of document.querySelectorAll('details')) one.open = true")
    browser.js(
        "for (const one of document.querySelectorAll('.test')) one.style.contentVisibility = 'visible'"
    )
    browser.js(Path(AXE).read_text())
    found = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(found => done("
        "found.violations.map(one => `${one.id}: ${one.nodes[0].html} ${one.nodes[0].failureSummary}`)))"
    )
    assert "\n".join(found) == ""


def test_live_page_follows_the_journal(browser, tmp_path):
    """New tests appear without a reload. Filters and opened rows stay, and the end is announced."""
    journal = tmp_path / "j.jsonl"
    first = "t.py::test_first"
    trial = Line(
        first, 1, entries.Trial(outcome="passed", schedule="f(at=1)", visits={"train.step": 3})
    )
    journal.write_text(trial.text() + "\n")
    live = LivePage(journal)
    server = server_of(live, 0)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        root = f"http://127.0.0.1:{server.server_address[1]}/"
        browser.open(root)
        assert browser.shown() == ["test_first"]
        assert browser.one(".live").text == "live"
        browser.js("window.same = true")
        browser.one(".test summary").click()
        browser.one(".find input").send_keys("test")
        with journal.open("a") as file:
            for line in (
                end(first, "passed", trials=1),
                *synthetic_journal.world("t.py::test_second", hung=True),
            ):
                file.write(line.text() + "\n")
        assert browser.until(lambda: len(browser.shown()) == 2)
        assert browser.one("h1").text == "1 of 2 chaos tests fails"
        assert browser.js("return window.same")
        assert browser.js(
            "return arguments[0].querySelector('details').open", browser.test("test_first")
        )
        assert browser.one(".find input").get_attribute("value") == "test"
        assert browser.js("return document.activeElement.matches('.find input')")
        live.end()
        assert browser.until(lambda: browser.one(".live").text == "session ended")
        assert live.saw_the_end
        asked = browser.requests()
        assert asked[0] == root
        assert set(asked[1:]) == {f"{root}page"}
        assert browser.console() == []
    finally:
        server.shutdown()
        server.server_close()


def test_live_page_says_that_its_server_is_gone(browser, tmp_path):
    """A killed session leaves an open page as it was."""
    journal = tmp_path / "j.jsonl"
    journal.write_text("".join(line.text() + "\n" for line in synthetic_journal.running("t.py::t")))
    live = LiveReport(0, str(journal))
    try:
        browser.open(live._start())
        assert browser.one(".live").text == "live"
    finally:
        live._kill()
    assert browser.until(lambda: browser.one(".live").text == "session ended")
    assert browser.shown() == ["t"]
