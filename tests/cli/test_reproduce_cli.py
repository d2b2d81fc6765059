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
method = "simplecil"
increment = 2
backbone = "vit_nano"
normalize = "NORMALIZE"
image_size = 32
resize = RESIZE
source = "nobody, table 0"

[[expectation]]
note = "made up"
[expectation.values]
last_accuracy = 90.0
average_accuracy = 95.0
accuracy_curve = [100.0, 99.0, 98.0, 97.0, 90.0]

[[expectation]]
seeds = [1993, 1994]
values = { average_accuracy = 95.0 }
spreads = { average_accuracy = 0.25 }
"""


@pytest.fixture
def reproduce(digits_place):
    """Runs the command on a file of values for these features."""

    def run(*arguments, normalize="timm", resize=32, **how):
        Path("mine.toml").write_text(MADE_UP.replace("NORMALIZE", normalize).replace("RESIZE", str(resize)))
        return commands.tosca("reproduce", "--expectation", "mine.toml", *arguments, columns=120, **how)

    return run


def outcome_of(root, **tasks):
    """Class means on the only store there."""
    (summary,) = list_stores(root)
    return run_protocol(SimpleCil(), TaskStream.from_store(open_store(summary.path), **tasks))


def test_ours_beside_the_published(reproduce, digits_cache):
    result = reproduce("--dataset", "digits", "--json", code=0)
    assert "extracting" not in result.stderr, "the store that is there has these features"
    last, average, curve, seeds = json.loads(result.stdout)
    outcome = outcome_of(digits_cache, increment=2, seed=1993)
    assert last["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    assert last["difference"] == pytest.approx(last["ours"] - 90)
    assert average["ours"] == pytest.approx(average_accuracy(outcome.R, outcome.counts))
    ours = accuracy_curve(outcome.R, outcome.counts)
    np.testing.assert_allclose(curve["ours"], ours)
    gaps = ours - curve["published"]
    assert curve["difference"] == pytest.approx(gaps[np.abs(gaps).argmax()])
    assert seeds["ours_spread"] > 0 and seeds["published_spread"] == 0.25 and seeds["seeds"] == [1993, 1994]
    words = " ".join(reproduce().stdout.split())
    assert f"{last['ours']:.2f} │ 90.00 │ {last['difference']:+.2f} │ [1]" in words
    assert "95.00 ± 0.25" in words and "worst of A_1 to A_5: A_5" in words
    assert "[1] nobody, table 0 (made up)" in words and "[2] nobody, table 0" in words
    assert "Made-up values for the digits" in words


def test_tasks_of_ones_own(reproduce, digits_cache):
    """Ours under other tasks, which stands beside the published values; a curve of another length is refused."""
    order = list(range(9, -1, -1))
    Path("order.txt").write_text("\n".join(map(str, order)))
    last, *_ = json.loads(reproduce("--task-sizes", "3,3,2,1,1", "--class-order", "order.txt", "--json", code=0).stdout)
    outcome = outcome_of(digits_cache, task_sizes=[3, 3, 2, 1, 1], class_order=order)
    assert last["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    assert last["note"] == "made up; ours with task sizes and class order of our own, not those published"
    for wrong, words in (("5,5", "the published curve has 5 tasks, --task-sizes 2"), ("3,3,2,1,2", "sum up to 11")):
        assert words in reproduce("--task-sizes", wrong, code=2).stderr


def test_features_of_another_transform_are_extracted(reproduce, digits_cache):
    """No normalisation and a resize that crops, as the published numbers of the ViT-B were made, with float32."""
    cropped = {"normalize": "none", "resize": 36}
    result = reproduce("--root", "made", "--json", **cropped, code=0)
    assert "no store in made has these features; extracting them" in result.stderr
    outcome = outcome_of(Path("made"), increment=2, seed=1993)
    assert json.loads(result.stdout)[0]["ours"] == pytest.approx(last_accuracy(outcome.R, outcome.counts))
    spec = list_stores(Path("made"))[0].spec
    assert spec.transform["normalize"] == "none" and spec.transform["resize"] == 36
    assert spec.precision == "fp32" and spec.views["count"] == 0
    again = reproduce("--root", "made", "--json", **cropped)
    assert "extracting" not in again.stderr and again.stdout == result.stdout
    (other,) = list_stores(digits_cache)
    refused = reproduce("--store", other.path, **cropped, code=1)
    assert 'transform.normalize: asked for "none", it has "timm"' in refused.stderr
