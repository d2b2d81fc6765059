"""Pages in a real Chromium without network: nothing in the console, tables sort, charts answer keys, brushing works."""

import pytest
from browser import PATIENCE, chromium, expect  # noqa: F401 (a fixture)
from report.targets import comparison_values, every_kind, run_values, sweep_values

from tosca_cache.report.pages import extract, render


@pytest.fixture
def opened(chromium, tmp_path):  # noqa: F811
    """Opens a page of some targets; the console must stay empty, and nothing but the page is asked for."""
    complaints = []

    def open_page(targets, *, width=1240, dark=False, media="screen"):
        path = tmp_path / "page.html"
        path.write_text(render(targets, None), encoding="utf-8")
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.emulate_media(media=media, color_scheme=scheme)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda asked: asked.url.startswith(("data:", path.as_uri())) or complaints.append(asked.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    assert not complaints


def table_of(page, title):
    return page.locator(".block", has=page.locator("h4", has_text=title)).locator("table").first


def column(table, number):
    script = "(t, n) => [...t.tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[n].textContent)"
    return table.evaluate(script, number)


def head(table, number):
    return table.locator("thead tr").first.locator("th").nth(number)


@pytest.mark.parametrize(("width", "dark"), [(1240, False), (1240, True), (390, False)])
def test_it_opens_offline_and_is_never_wider_than_the_window(opened, width, dark):
    for targets in (*([one] for one in every_kind()), every_kind()):
        page = opened(targets, width=width, dark=dark)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, targets[0]["kind"]
        found = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
        ink = ["rgb(230, 233, 236)", "rgb(18, 22, 27)"] if dark else ["rgb(27, 31, 36)", "rgb(255, 255, 255)"]
        assert found == ink
        page.context.close()


def test_the_text_of_the_page_is_the_json_of_the_run(opened):
    run = run_values(("<b>ant</b>", "[red]", "=cmd()", "a\nb"))
    page = opened([run])
    assert extract(page.content())["targets"] == [run]
    table = table_of(page, "Accuracy by class")
    found = dict(zip(column(table, 0), column(table, 1), strict=True))
    expected = zip(run["classes"]["names"], run["classes"]["accuracy"], strict=True)
    assert found == {name: f"{accuracy:.2f}" for name, accuracy in expected}


def test_a_table_is_sorted_by_its_heads_and_searched(opened):
    page = opened([run_values(tuple(f"class {n}" for n in range(12)), tasks=3)])
    table = table_of(page, "Accuracy by class")
    values = [float(v) for v in column(table, 1)]
    assert values == sorted(values)
    head(table, 1).locator("button").click()
    assert [float(v) for v in column(table, 1)] == sorted(values, reverse=True)
    assert head(table, 1).get_attribute("aria-sort") == "descending"
    head(table, 0).locator("button").press("Enter")
    assert column(table, 0) == [f"class {n}" for n in range(12)], "numbers in names count as numbers"
    block = page.locator(".block", has=page.locator("h4", has_text="Accuracy by class"))
    block.locator("input[type=search]").fill("class 11")
    assert "class 11" in column(table, 0) and len(column(table, 0)) < 12


def test_arrow_keys_read_the_values_of_a_chart(opened):
    page = opened([run_values()])
    page.locator("svg.chart").first.focus()
    tip = page.locator("#tip")
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert first.startswith("this run, 1: ") and tip.inner_text().startswith("this run, 2: ")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


def test_brushing_by_fields_and_by_dragging_shows_the_same_settings_everywhere(opened):
    sweep = sweep_values(40)
    page, settings = opened([sweep]), sweep["groups"][0]["settings"]
    count = page.locator(".brushing .count")
    expect(count).to_have_text("40 of 40 settings")
    above = [s for s in settings if s["mean"] >= 75]
    page.locator(".brushing .from").last.press_sequentially("75")
    expect(count).to_have_text(f"{len(above)} of 40 settings")
    assert len(column(table_of(page, "Settings"), 0)) == len(above)
    assert page.locator(".settings polyline:not(.out)").count() == len(above)
    page.locator(".brushing input[type=checkbox]").first.click()
    both = [s for s in above if s["point"]["optimizer"] != "adam"]
    assert len(column(table_of(page, "Settings"), 0)) == len(both)
    page.locator(".brushing button[type=reset]").click()
    expect(count).to_have_text("40 of 40 settings")
    axis = page.locator(".brush").last
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1, steps=4)
    page.mouse.up()
    shown = len(column(table_of(page, "Settings"), 0))
    middle = (max(s["mean"] for s in settings) + min(s["mean"] for s in settings)) / 2
    assert abs(shown - sum(s["mean"] >= middle for s in settings)) <= 2 and 0 < shown < 40


def test_the_ticked_learners_have_curves(opened):
    page = opened([comparison_values()])
    boxes, groups = page.locator("td input[type=checkbox]"), page.locator(".chart g[data-mark]")
    assert all(boxes.nth(number).is_checked() for number in range(boxes.count()))
    for hidden in (1, 0):
        boxes.first.click()
        shown = groups.evaluate_all("all => all.map(g => getComputedStyle(g).display)")
        assert shown.count("none") == hidden


def test_large_reports_open_and_any_prints_in_black_on_white(opened):
    page = opened([run_values(tuple(f"class number {n}" for n in range(1000)), tasks=50)])
    assert len(column(table_of(page, "Accuracy by class"), 0)) == 1000
    expect(opened([sweep_values(5000)]).locator(".brushing .count")).to_have_text("5000 of 5000 settings")
    page = opened(every_kind(), dark=True, media="print")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
