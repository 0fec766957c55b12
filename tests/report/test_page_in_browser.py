"""The report in a real browser: it opens in silence, sorts, unfolds, prints, and anybody can read it."""

from __future__ import annotations

import base64
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safety_harness.gate.results import RunResult
from safety_harness.report import write_reports
from tests.report.attacked import attacked_run, five, together
from tests.samples import answered, run_result, sample_checks

CHROMIUM, DRIVER, NPM = (shutil.which(name) for name in ("chromium", "chromedriver", "npm"))
AXE = "axe-core@4.14.1"
QUIET = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1200,900",
)  # fmt: skip

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in QUIET:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    driver.implicitly_wait(10)  # a link unfolds its target in an event after the click
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    named = {
        "alpha/passes": sample_checks(), "alpha/fails": sample_checks(refused=100, over_refused=9),
        "beta/lost": sample_checks(refused=9), "beta/none": [],
    }  # fmt: skip
    return written(run_result(named, {"beta/lost": "fail"}), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def attacked_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every sort of cell of the map, with letters and with answers."""
    checks = [answered(check) if "mild" in check.name else check for check in together(five(wild=40))]
    result = attacked_run({"alpha/falls": checks, "alpha/holds": together(five()), "alpha/none": []})
    return written(result, tmp_path_factory.mktemp("attacked"))


def written(result: RunResult, folder: Path) -> str:
    write_reports(result, folder)
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of axe-core, from npm."""
    if not NPM:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run([NPM, "pack", "--silent", AXE], cwd=folder, check=True, capture_output=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        member = archive.extractfile("package/axe.min.js")
        assert member is not None
        return member.read().decode("utf-8")


def column(browser: Any, number: int) -> list[str]:
    cells = browser.find_elements("css selector", f"table.sortable tbody tr > :nth-child({number})")
    return [cell.text for cell in cells]


def test_opens_without_a_word_on_the_console(browser: Any, page: str) -> None:
    browser.get(page)
    assert browser.title == "Release gate: FAIL"
    assert browser.get_log("browser") == []


def test_hostile_text_does_nothing(browser: Any, hostile: RunResult, tmp_path: Path) -> None:
    browser.get(written(hostile, tmp_path))
    assert browser.get_log("browser") == []
    assert len(browser.find_elements("tag name", "script")) == 1
    assert browser.execute_script("return document.images.length") == 0


def test_a_heading_sorts_up_and_down_by_mouse_and_keyboard(browser: Any, page: str) -> None:
    from selenium.webdriver.common.keys import Keys

    browser.get(page)
    student, _gate, dsr = browser.find_elements("css selector", "table.sortable th button")[:3]
    student.click()
    names = ["alpha/fails", "alpha/passes", "beta/lost", "beta/none"]
    assert column(browser, 1) == names
    student.send_keys(Keys.ENTER)
    assert column(browser, 1) == names[::-1]
    dsr.send_keys(Keys.SPACE)
    assert column(browser, 3) == ["–", "0→7 [4–13]", "0→78 [70–84]", "0→100 [97–100]"]
    assert browser.find_element("css selector", "th[aria-sort]").get_attribute("aria-sort") == "ascending"


def test_a_link_unfolds_what_it_leads_to(browser: Any, page: str) -> None:
    browser.get(page)
    browser.find_element("link text", "alpha/fails").click()
    (opened,) = browser.find_elements("css selector", "details[open]")
    assert "alpha/fails" in opened.text
    opened.find_element("css selector", ":scope > details > summary").click()
    opened.find_element("link text", "harmful-0").click()
    question = browser.find_element("css selector", "li:target")
    assert question.is_displayed()
    assert question.text == "harmful-0 (weapons) A harmful question 0"


def test_the_map_leads_to_a_question_and_its_words(browser: Any, attacked_page: str) -> None:
    """Follow a student of the map, unfold its questions, and follow the first of them."""
    browser.get(attacked_page)
    assert browser.get_log("browser") == []
    browser.find_element("css selector", "table.heat tbody th a").click()
    (student,) = browser.find_elements("css selector", "details.student[open]")
    student.find_element("xpath", ".//summary[starts-with(., 'Each question under each attack')]").click()
    question = student.find_element("css selector", "table.fates tbody th a")
    assert question.is_displayed()
    name = question.text
    question.click()
    assert browser.find_element("css selector", "li:target").text.startswith(f"{name} (weapons) A harmful question")


def test_colours_of_the_map_are_by_the_share(browser: Any, attacked_page: str) -> None:
    """Expect three shares to have three colours, and what does not count none of them."""
    browser.get(attacked_page)
    cells = browser.find_elements("css selector", "table.heat tbody tr:first-child td")
    colours = [cell.value_of_css_property("background-color") for cell in cells[:3]]
    assert len(set(colours)) == 3
    assert "gradient" in cells[3].value_of_css_property("background-image")
    assert cells[3].value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"


def test_prints_to_a_pdf_of_a_few_pages(browser: Any, page: str) -> None:
    browser.get(page)
    pdf = base64.b64decode(browser.print_page())
    assert pdf.startswith(b"%PDF")
    assert 1 <= pdf.count(b"/Type /Page\n") <= 16  # 128 questions are still answered


@pytest.mark.parametrize(
    ("of", "width", "scheme"),
    [("page", 360, "light"), ("page", 1200, "dark"), ("attacked_page", 360, "dark"), ("attacked_page", 1200, "light")],
)
def test_no_serious_accessibility_finding(
    browser: Any, request: pytest.FixtureRequest, axe: str, scheme: str, width: int, of: str
) -> None:
    page = request.getfixturevalue(of)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)
    browser.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
    browser.execute_script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    browser.execute_script(axe)
    report = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in report["violations"]] == []
    # Nothing but what scrolls by itself is wider than the screen.
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
