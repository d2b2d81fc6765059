"""`tosca reproduce` on made-up values for the digits, from extraction to the table."""

import json
from pathlib import Path

import commands
import numpy as np
import pytest

from tosca_cache.evaluate.metrics import accuracy_curve, average_accuracy, last_accuracy
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.learners.simplecil import SimpleCil
from tosca_cache.store import list_stores, open_store
from tosca_cache.tasks import TaskStream

MADE_UP = """
title = "Made-up values for the digits"

[defaults]
dataset = "digits"
method = "{method}"
increment = 2
backbone = "vit_nano"
normalize = "{normalize}"
image_size = 32
resize = {resize}
source = "nobody, table 0"

[[expectation]]
note = "made up"
[expectation.values]
last_accuracy = 90.0
average_accuracy = 95.0
accuracy_curve = [100.0, 99.0, 98.0, 97.0, 90.0]

[[expectation]]
seeds = [1993, 1994]
values = {{ average_accuracy = 95.0 }}
spreads = {{ average_accuracy = 0.25 }}
"""


@pytest.fixture
def made_up(digits_place):
    """Writes a file of values: (method, normalize, resize) -> its name."""

    def write(method="simplecil", normalize="timm", resize=32):
        text = MADE_UP.format(method=method, normalize=normalize, resize=resize)
        Path("mine.toml").write_text(text)
        return "mine.toml"

    return write


def tosca(*arguments, **how):
    return commands.tosca("reproduce", *arguments, columns=120, **how)


def outcome_of(path):
    stream = TaskStream.from_store(open_store(path), increment=2, seed=1993)
    return run_protocol(SimpleCil(), stream)


def test_ours_beside_the_published(made_up, digits_cache):
    result = tosca("--expectation", made_up(), "--dataset", "digits", "--json", code=0)
    assert "extracting" not in result.stderr, "the store that is there has these features"
    last, average, curve, seeds = json.loads(result.stdout)
    (summary,) = list_stores(digits_cache)
    outcome = outcome_of(summary.path)
    assert last["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    assert last["difference"] == pytest.approx(last["ours"] - 90)
    assert average["ours"] == pytest.approx(average_accuracy(outcome.R, outcome.counts))
    ours = accuracy_curve(outcome.R, outcome.counts)
    np.testing.assert_allclose(curve["ours"], ours)
    gaps = ours - curve["published"]
    assert curve["difference"] == pytest.approx(gaps[np.abs(gaps).argmax()])
    assert seeds["ours_spread"] > 0 and seeds["published_spread"] == 0.25 and seeds["seeds"] == [1993, 1994]
    assert last["source"] == "nobody, table 0" and last["note"] == "made up"

    table = tosca("--expectation", "mine.toml")
    words = " ".join(table.stdout.split())
    assert f"{last['ours']:.2f} │ 90.00 │ {last['difference']:+.2f} │ [1]" in words
    assert "95.00 ± 0.25" in words and "worst of A_1 to A_5: A_5" in words
    assert "[1] nobody, table 0 (made up)" in words and "[2] nobody, table 0" in words
    assert "Made-up values for the digits" in words


def test_tasks_of_ones_own(made_up, digits_cache):
    """Ours under other tasks, which stands beside the published values; a curve of another length is refused."""
    sizes, order = "3,3,2,1,1", [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]
    Path("order.txt").write_text("\n".join(map(str, order)))
    asked = ("--expectation", made_up(), "--task-sizes", sizes, "--class-order", "order.txt")
    result = tosca(*asked, "--json", code=0)
    last, *_ = json.loads(result.stdout)
    (summary,) = list_stores(digits_cache)
    stream = TaskStream.from_store(open_store(summary.path), task_sizes=[3, 3, 2, 1, 1], class_order=order)
    outcome = run_protocol(SimpleCil(), stream)
    assert last["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    assert last["note"] == "made up; ours with task sizes and class order of our own, not those published"
    assert "not those published" in " ".join(tosca(*asked).stdout.split())
    for wrong, words in (("5,5", "the published curve has 5 tasks, --task-sizes 2"), ("3,3,2,1,2", "sum up to 11")):
        assert words in tosca(*asked[:3], wrong, code=2).stderr


def test_features_of_another_transform_are_extracted(made_up, digits_cache):
    """No normalisation and a resize that crops, as the published numbers of the ViT-B were made, with float32."""
    asked = ("--expectation", made_up(normalize="none", resize=36), "--root", "made", "--json")
    result = tosca(*asked, code=0)
    assert "no store in made has these features; extracting them" in result.stderr
    (summary,) = list_stores(Path("made"))
    spec = summary.spec
    assert spec.transform["normalize"] == "none" and spec.transform["resize"] == 36
    assert spec.precision == "fp32" and spec.views["count"] == 0
    outcome = outcome_of(summary.path)
    assert json.loads(result.stdout)[0]["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    again = tosca(*asked)
    assert "extracting" not in again.stderr and again.stdout == result.stdout
    assert len(list_stores(Path("made"))) == 1
    (other,) = list_stores(digits_cache)
    refused = tosca("--expectation", "mine.toml", "--store", other.path, code=1)
    assert 'transform.normalize: asked for "none", it has "timm"' in refused.stderr


def test_the_list(digits_place):
    listed = " ".join(tosca("--list", "--dataset", "cub").stdout.split())
    for words in ("--paper simplecil: ", "86.77", "92.24", "repository RanPAC/RanPAC, results table, row 'NCM'"):
        assert words in listed
