"""Pages in a real Chromium without network: nothing in the console, tables sort, charts answer keys, brushing works.

Skipped where there is no selenium, or no Chromium with its driver.
"""

import importlib
import shutil

import pytest
from report.targets import comparison_values, every_kind, routes_values, run_values, store_values, sweep_values

from tosca_cache.report.pages import extract, render

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
KINDS = {
    "run": run_values,
    "sweep": sweep_values,
    "comparison": comparison_values,
    "routes": routes_values,
    "store": store_values,
}


@pytest.fixture(scope="module")
def chromium():
    """A Chromium without network."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("there is no Chromium with its driver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1240,900",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Network.enable", {})
    offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens a page of some targets; afterwards the console must be empty."""

    def open_page(targets, photos=None):
        path = tmp_path / "page.html"
        path.write_text(render(targets, photos), encoding="utf-8")
        chromium.get_log("browser")
        chromium.get(path.as_uri())
        return chromium

    yield open_page
    assert chromium.get_log("browser") == []


def column(driver, table, number):
    script = (
        "return [...arguments[0].tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[arguments[1]].textContent)"
    )
    return driver.execute_script(script, table, number)


def table_of(driver, title):
    find = "[...document.querySelectorAll('h4')].find(h => h.textContent === arguments[0])"
    return driver.execute_script(f"return {find}.closest('.block').querySelector('table')", title)


def head(driver, table, number):
    return driver.execute_script("return arguments[0].tHead.rows[0].cells[arguments[1]]", table, number)


@pytest.mark.parametrize("kind", [*KINDS, "all"])
@pytest.mark.parametrize(("width", "dark"), [(1240, False), (1240, True), (390, False)])
def test_it_opens_offline_and_is_never_wider_than_the_window(opened, chromium, kind, width, dark):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    driver = opened(every_kind() if kind == "all" else [KINDS[kind]()])
    assert driver.execute_script("return document.documentElement.scrollWidth") <= width
    ink, page = driver.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
    assert (ink, page) == (
        ("rgb(230, 233, 236)", "rgb(18, 22, 27)") if dark else ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
    )
    assert (
        driver.execute_script(
            "return performance.getEntriesByType('resource').filter(e => !e.name.startsWith('data:')).length"
        )
        == 0
    )
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_text_of_the_page_is_the_json_of_the_run(opened):
    run = run_values(("<b>ant</b>", "[red]", "=cmd()", "a\nb"))
    driver = opened([run])
    assert extract(driver.page_source)["targets"] == [run]
    table = table_of(driver, "Accuracy by class")
    found = dict(zip(column(driver, table, 0), column(driver, table, 1), strict=True))
    expected = zip(run["classes"]["names"], run["classes"]["accuracy"], strict=True)
    assert found == {name: f"{accuracy:.2f}" for name, accuracy in expected}


def test_a_table_is_sorted_by_its_heads_and_searched(opened):
    run = run_values(tuple(f"class {n}" for n in range(12)), tasks=3)
    driver = opened([run])
    table = table_of(driver, "Accuracy by class")
    values = [float(v) for v in column(driver, table, 1)]
    assert values == sorted(values)
    head(driver, table, 1).find_element("tag name", "button").click()
    assert [float(v) for v in column(driver, table, 1)] == sorted(values, reverse=True)
    assert head(driver, table, 1).get_attribute("aria-sort") == "descending"
    head(driver, table, 0).find_element("tag name", "button").send_keys("\ue007")
    assert column(driver, table, 0) == [f"class {n}" for n in range(12)], "numbers in names count as numbers"
    field = table.find_element("xpath", "./ancestor::div[contains(@class, 'block')]//input[@type='search']")
    field.send_keys("class 11")
    assert "class 11" in column(driver, table, 0) and len(column(driver, table, 0)) < 12


def test_arrow_keys_read_the_values_of_a_chart(opened):
    driver = opened([run_values()])
    chart = driver.find_element("css selector", "svg.chart")
    driver.execute_script("arguments[0].focus()", chart)
    tip = driver.find_element("id", "tip")
    active = driver.switch_to.active_element
    active.send_keys("\ue014")
    first = tip.text
    active.send_keys("\ue014")
    assert first.startswith("this run, 1: ") and tip.text.startswith("this run, 2: ")
    active.send_keys("\ue00c")
    assert not tip.is_displayed()


def test_brushing_by_fields_and_by_dragging_shows_the_same_settings_everywhere(opened):
    sweep = sweep_values(40)
    driver = opened([sweep])
    settings = sweep["groups"][0]["settings"]
    assert driver.find_element("css selector", ".brushing .count").text == "40 of 40 settings"
    above = [s for s in settings if s["mean"] >= 75]
    field = driver.find_elements("css selector", ".brushing .from")[-1]
    field.send_keys("75")
    assert driver.find_element("css selector", ".brushing .count").text == f"{len(above)} of 40 settings"
    assert len(column(driver, table_of(driver, "Settings"), 0)) == len(above)
    assert len(driver.find_elements("css selector", ".settings polyline:not(.out)")) == len(above)
    driver.find_element("css selector", ".brushing input[type=checkbox]").click()
    both = [s for s in above if s["point"]["optimizer"] != "adam"]
    assert len(column(driver, table_of(driver, "Settings"), 0)) == len(both)
    driver.find_element("css selector", ".brushing button[type=reset]").click()
    wait = importlib.import_module("selenium.webdriver.support.ui").WebDriverWait(driver, 60)
    wait.until(lambda d: "40 of 40" in d.find_element("css selector", ".brushing .count").text)
    axis = driver.find_elements("css selector", ".brush")[-1]
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", axis)
    actions = webdriver.ActionChains(driver)
    actions.move_to_element_with_offset(axis, 0, 0).click_and_hold().move_by_offset(
        0, -int(axis.rect["height"] / 2) + 1
    ).release().perform()
    shown = len(column(driver, table_of(driver, "Settings"), 0))
    middle = (max(s["mean"] for s in settings) + min(s["mean"] for s in settings)) / 2
    assert abs(shown - sum(s["mean"] >= middle for s in settings)) <= 2 and 0 < shown < 40


def test_the_ticked_learners_have_curves(opened):
    driver = opened([comparison_values()])
    boxes = driver.find_elements("css selector", "td input[type=checkbox]")
    assert all(box.is_selected() for box in boxes)
    groups = driver.find_elements("css selector", ".chart g[data-mark]")
    boxes[0].click()
    assert [group.is_displayed() for group in groups].count(False) == 1
    boxes[0].click()
    assert all(group.is_displayed() for group in groups)


def test_large_reports_open(opened):
    driver = opened([run_values(tuple(f"class number {n}" for n in range(1000)), tasks=50)])
    assert len(column(driver, table_of(driver, "Accuracy by class"), 0)) == 1000
    driver = opened([sweep_values(5000)])
    assert driver.find_element("css selector", ".brushing .count").text == "5000 of 5000 settings"


def test_it_prints_in_black_on_white(opened, chromium):
    chromium.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]},
    )
    driver = opened(every_kind())
    assert driver.execute_script("return getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert driver.execute_script("return getComputedStyle(document.querySelector('nav')).display") == "none"
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
