"""Pages without a browser: what stands in them, that names are text, that the numbers come back, and how large they are."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import tosca
from hypothesis import example, given
from hypothesis import strategies as st
from report.targets import EVIL, comparison_values, every_kind, run_values, store_values, sweep_values

from tosca_cache import __version__
from tosca_cache.report.pages import extract, render
from tosca_cache.text import csv_text, html_text, latex, markdown, one_line

MEGABYTE = 1_000_000


class Page(HTMLParser):
    """Texts, elements and attributes of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.texts, self.tags, self.attributes, self._script = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self._script = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._script = False

    def handle_data(self, data):
        if not self._script:
            self.texts.append(data)


def test_the_numbers_come_back_nothing_points_outside_and_charts_are_said_in_words():
    targets = every_kind()
    text = render(targets, {"k": "data:image/jpeg;base64,AAAA"}, made={"tosca_cache": "1", "made": "now"})
    attributes = Page(text).attributes
    assert extract(text)["targets"] == targets == every_kind()
    assert not any(isinstance(value, str) and re.match("(https?:)?//", value) for _, _, value in attributes)
    assert all(value.startswith(("#", "data:")) for _, name, value in attributes if name in ("src", "href"))
    (policy,) = [value for _, _, value in attributes if value and value.startswith("default-src")]
    assert policy.startswith("default-src 'none'; img-src data:;") and len(text) < MEGABYTE
    labels, roles = ([v for tag, name, v in attributes if (tag, name) == ("svg", a)] for a in ("aria-label", "role"))
    assert len(labels) > 12 and all(len(label) > 20 and ". " in label for label in labels)
    assert roles == ["img"] * len(labels)
    for bad in ("", "<html></html>", '<script type="application/json" id="tosca-data">[1]</script>'):
        with pytest.raises(ValueError):
            extract(bad)


@given(st.lists(st.one_of(st.text(max_size=40), st.sampled_from(EVIL)), min_size=2, max_size=6))
@example(EVIL)
@example(["", " "])
def test_names_are_text_in_every_part(names):
    words, n = tuple(dict.fromkeys([*names, "b"])), ["n"] * len(names)
    targets = [run_values(names), store_values(names), sweep_values(words=words)]
    plain = [run_values(n), store_values(n), sweep_values(words=tuple(f"n{k}" for k in range(len(words))))]
    text = render(targets)
    page = Page(text)
    assert extract(text)["targets"] == targets
    assert sorted(page.tags) == sorted(Page(render(plain)).tags)
    assert page.tags.count("script") == 2 and not any(name.startswith("on") for _, name, _ in page.attributes)
    texts = "\0".join(page.texts)
    for name in names:
        assert html_text(name) in texts


@given(st.one_of(st.text(max_size=40), st.sampled_from(EVIL)))
def test_names_are_text_on_a_terminal_in_latex_markdown_and_csv(name):
    assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e]", one_line(name))
    assert "\n" not in latex(name) and "\n" not in markdown(name)
    assert not re.search(r"(?<!\\)[$&#_%]", latex(name).replace(r"$\pm$", ""))
    cell = csv_text([[name]]).lstrip('"')
    assert not cell.startswith(("=", "@")) and (
        not cell.startswith(("+", "-")) or re.match(r"[-+][\d.einf]", cell, re.I)
    )


def test_values_and_warnings_stand_in_the_page():
    run = run_values()
    texts, metrics = {text.strip() for text in Page(render([run])).texts}, run["metrics"]
    assert {f"{metrics[name]:.2f} ± 0.50" for name in ("average_accuracy", "last_accuracy", "forgetting")} <= texts
    values = [v for row in metrics["R"] for v in row if v is not None]
    assert {f"{value:.2f}" for value in (*values, *metrics["last_accuracy_by_condition"].values())} <= texts
    assert "Careful" not in render([run])
    few, oracle = run_values(seeds=(1993,), leaks="reads the order of the test file"), sweep_values()
    oracle["report"]["how"] = "chosen on test rows"
    text = " ".join(Page(render([few, store_values(), oracle])).texts)
    for said in ("The protocol leaks", "One seed", "data may leak", "far from float32: relative error", "is no result"):
        assert said in text


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        ((79.0, 80.0, 82.0), "worse"),
        ((89.0, 92.0, 90.0), "not told apart"),
        ((89.0, 90.0, 91.0), "the same with every seed: cannot be told"),
    ],
)
def test_worse_is_only_said_where_the_interval_leaves_out_zero(other, verdict):
    page = Page(render([comparison_values({"a": (90.0, 91.0, 92.0), "b": other})]))
    assert page.texts.count(verdict) == 1


def test_large_reports_are_small_files():
    assert len(render([run_values(tuple(f"class number {n}" for n in range(1000)), tasks=50)])) < 3 * MEGABYTE
    assert len(render([sweep_values(5000)])) < 5 * MEGABYTE


@pytest.fixture(scope="module")
def place(make_store, tmp_path_factory):
    """A run, a sweep and a comparison on a small store."""
    folder = tmp_path_factory.mktemp("place")
    make_store(folder / "store")
    for command in (
        "train --increment 2 --epochs 1 --router sample --seed 1,2",
        "sweep --set increment=2 --set l1=0,1e-4,1e-3 --set epochs=1,2 --seeds 1 --report-seeds 1",
        "compare --increment 2 --methods nmc,lda,simplecil --seeds 2",
    ):
        done = tosca(*command.split(), "--store", folder / "store", "--runs", folder / "runs", code=0)
        assert done.output.splitlines()[-1].startswith("page: ") and done.output.rstrip().endswith(".html")
    return folder


@pytest.fixture(scope="module")
def run(place):
    (found,) = [path for path in (place / "runs").iterdir() if path.is_dir()]
    return found


def test_train_sweep_and_compare_leave_a_page_with_what_made_the_numbers(place, run):
    (target,) = extract((run / "report.html").read_text())["targets"]
    assert target["metrics"] == json.loads((run / "metrics.json").read_text())
    (sweep,) = extract((place / "runs" / "shapes-sweep.report.html").read_text())["targets"]
    assert sweep["report"] == json.loads((place / "runs" / "shapes-sweep.report.json").read_text())
    assert len(sweep["groups"][0]["settings"]) == 6
    (comparison,) = extract((place / "runs" / "shapes-compare.report.html").read_text())["targets"]
    assert {row["method"] for row in comparison["found"]["rows"]} == {"nmc", "lda", "simplecil"}
    for kind in ("sweep", "compare"):  # again, after the command that made them
        tosca("report", place / "runs" / f"shapes-{kind}.sqlite", "-o", place / "again.html", code=0)
        text = (place / "again.html").read_text()
        (target,) = extract(text)["targets"]
        assert target["made"]["tosca_cache"] == __version__ and target["made"]["machine"]["python"]
        assert target["made"]["store"]["path"] == str(place / "store")
        assert {target["command"], target["made"]["store"]["fingerprint"]} <= set(Page(text).texts)


def test_report_takes_any_mix_and_adds_the_curves_of_floor_ceiling_and_pool(place, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ledgers = [place / "runs" / f"shapes-{kind}.sqlite" for kind in ("sweep", "compare")]
    Path("routes.json").write_text(tosca("route", run, "--routers", "sample", "--json", code=0).stdout)
    tosca("report", run, *ledgers, place / "store", "routes.json", "-o", "all.html", code=0)
    targets = extract(Path("all.html").read_text())["targets"]
    assert [target["kind"] for target in targets] == ["run", "sweep", "comparison", "store", "routes"]
    metrics, curves = targets[0]["metrics"], targets[0]["curves"]
    for name in ("oracle", "pool", "nearest_class_mean"):
        assert curves[name]["mean"][-1] == pytest.approx(metrics["last_accuracy_by_condition"][name])
    assert curves["oracle"]["mean"][0] == pytest.approx(metrics["R"][0][0])
    assert targets[3]["map"]["points"] and "provenance" in targets[3] and targets[4]["made"]["store"]
    found = targets[0]["map"]
    tasks = {name: t for t, names in enumerate(metrics["seeds"]["1"]["tasks"]) for name in names}
    assert found["task_of"] == [tasks[found["classes"][point[2]]] for point in found["points"]]
    assert json.loads(tosca("report", "--extract", "all.html", code=0).stdout)["targets"] == targets
    Path("text.json").write_text("[1, 2]")
    Path("text.html").write_text("<p>")
    for target in ("nothing-of-the-kind", "text.json", "text.html"):
        for arguments in (("report", target), ("report", "--extract", target), ("report",)):
            done = tosca(*arguments)
            assert done.exit_code and "error: " in done.output


def test_no_report_leaves_none_but_a_live_page_that_refreshes_itself_until_the_end(place, tmp_path, monkeypatch):
    from tosca_cache.cli import report as room

    written, plain = [], room.write_page

    def write_page(found, out, *a, refresh=None):
        written.append(refresh)
        return plain(found, out, *a, refresh=refresh)

    monkeypatch.setattr(room, "write_page", write_page)
    common = ("--store", place / "store", "--runs", tmp_path, "--no-report")
    tosca("train", "--increment", 2, "--epochs", 1, *common, code=0)
    live = tmp_path / "live.html"
    for command in (
        "sweep --set increment=2 --set l1=0,1e-4 --seeds 1 --report-seeds 1",
        "compare --increment 2 --methods nmc,lda --seeds 1",
    ):
        written.clear()
        tosca(*command.split(), *common, "--live", live, code=0)
        assert written[0] == 3 and written[-1] is None and set(written[:-1]) == {3}
        text, refreshing = live.read_text(), 'http-equiv="refresh"'
        assert refreshing not in text and refreshing in render(extract(text)["targets"], refresh=3)
    assert list(tmp_path.rglob("*.html")) == [live]


def test_the_commands_of_the_documentation_work_and_photos_are_embedded_unless_left_out(digits_place):
    for command in (
        "train --dataset digits --epochs 1 --router sample",
        "sweep --dataset digits --set epochs=1,2 --seeds 1 --report-seeds 1",
        "compare --dataset digits --methods nmc,lda --seeds 2",
    ):
        tosca(*command.split(), code=0)
    page = next(path for path in (digits_place / "runs").iterdir() if path.is_dir()) / "report.html"
    assert "data:image/jpeg" not in page.read_text()
    text = (Path(__file__).parents[2] / "docs" / "reports.md").read_text(encoding="utf-8")
    commands = [line.removeprefix("tosca ").split() for line in text.splitlines() if line.startswith("tosca ")]
    assert len(commands) == 4
    for command in commands:
        tosca(*command, code=0)
    assert (digits_place / "both.html").is_file()
    tosca("report", "last", code=0)
    with_photos = page.read_text()
    assert 1 < with_photos.count('src="data:image/jpeg') <= 2 * 200
    tosca("report", "last", "--no-images", code=0)
    assert "data:image/jpeg" not in page.read_text() and len(page.read_text()) < 3 * MEGABYTE
    found = extract(with_photos)["targets"][0]
    pairs = [(pair["true"], pair["answered"]) for pair in found["photos"]["confused"]]
    assert pairs == [tuple(pair[:2]) for pair in found["classes"]["pairs"]][: len(pairs)], "the order of the table"
    probabilities = [suspect["probability"] for suspect in found["photos"]["suspects"]]
    assert probabilities == sorted(probabilities) and all(p < 0.1 for p in probabilities)
