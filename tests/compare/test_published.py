"""Published values and numbers: consistent, what they imply, what stands beside a comparison; the recorded tables."""

import json
import re
from collections import Counter
from pathlib import Path

import commands
import numpy as np
import pytest
import write_field_docs

import tosca_cache as tosca
from tosca_cache.compare.expectation import find_paper, read_paper, shipped_papers
from tosca_cache.compare.published import BATCHES, FROZEN, beside, implied, published, rows, under
from tosca_cache.compare.reproduce import wanted_fields
from tosca_cache.datasets import known
from tosca_cache.errors import ConfigError
from tosca_cache.extract.names import resolve_name
from tosca_cache.learners import LEARNERS
from tosca_cache.report.pages import extract
from tosca_cache.tasks import task_sizes

ROOT = Path(__file__).parents[2]
TABLES = sorted((ROOT / "benchmarks" / "results" / "compare").glob("*.json"))
UNKNOWN = {"cars", "food101", "tinyimagenet"}  # datasets that have no name of ours
GOOD = """
[[expectation]]
dataset = "digits"
method = "simplecil"
increment = 2
backbone = "vit_nano"
normalize = "timm"
image_size = 32
resize = 32
source = "made up"
values = { last_accuracy = 97.0 }
"""


def test_every_value_can_be_run_and_hangs_together_with_the_others():
    """The last value of a curve is A_T, and its mean A-bar; A_T is a multiple of one test row's share."""
    papers = shipped_papers()
    assert papers == ("nmc", "ranpac", "simplecil", "simplecil-in1k", "simplecil-mos", "simplecil-seeds")
    every = [(name, one) for name in papers for one in find_paper(name).expectations]
    assert len(every) == 1 + 18 + 7 + 2 + 7 + 5
    for paper, one in every:
        dataset, values = known(one.dataset), one.values
        assert dataset is not None and dataset.name == one.dataset and one.method in LEARNERS
        sizes = task_sizes(dataset.classes, one.increment, one.init_cls)
        assert resolve_name(one.backbone)[1] in ("augreg_in21k", "augreg_in21k_ft_in1k")
        assert one.normalize == "none" and one.image_size == 224 and one.resize in (224, 256)
        assert one.source and values
        for name, value in values.items():
            numbers = np.atleast_1d(value)
            assert len(numbers) == (len(sizes) if name == "accuracy_curve" else 1)
            assert ((numbers > 30) & (numbers < 100)).all()
        if "accuracy_curve" in values:
            assert values["accuracy_curve"][-1] == values["last_accuracy"]
            assert np.mean(values["accuracy_curve"]) == pytest.approx(values["average_accuracy"], abs=0.006)
        if paper == "simplecil":
            right = values["last_accuracy"] / 100 * dataset.test
            assert min(right % 1, 1 - right % 1) <= 0.005 / 100 * dataset.test + 1e-6
    transform = {"normalize": "none", "image_size": 224, "resize": 256, "interpolation": "bicubic"}
    backbone = {"backbone.name": "vit_base_patch16_224", "backbone.tag": "augreg_in21k"}
    expected = {"dataset.name": "cub"} | backbone | {f"transform.{key}": value for key, value in transform.items()}
    assert wanted_fields(find_paper("simplecil").of("cub")[0]) == expected


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("[defaults]\nseeds = [1, 2]\n" + GOOD)
    (one,) = read_paper(path).of(None)
    assert (one.dataset, one.increment, one.seeds, one.interpolation) == ("digits", 2, (1, 2), "bicubic")
    for wanted, instead, said in (
        ("increment = 2", "incremnt = 2", "did you mean 'increment'"),
        ("increment = 2", "", "give increment"),
        ("increment = 2", 'increment = "2"', "increment: "),
        ("increment = 2", "increment = 2\nseeds = []", "seeds: "),
        ("last_accuracy = 97.0", "accuracy = 97.0", "values.accuracy: "),
        ("last_accuracy = 97.0", 'last_accuracy = "97"', "last_accuracy"),
        ("[[expectation]]", "", "there is no"),
        ("[[expectation]]", "[[", "cannot be read"),
    ):
        path.write_text(GOOD.replace(wanted, instead))
        with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
            read_paper(path)
        assert said in str(caught.value)


def test_every_number_is_one_record_with_a_source():
    records = published()
    assert len(records) > 1200 and len({one.source for one in records}) > 20
    keys = Counter(one.model_dump_json(exclude={"value", "spread"}) for one in records)
    assert not [key for key, count in keys.items() if count > 1]
    for one in records:
        values = np.atleast_1d(one.value)
        assert ((values > 5) & (values <= 100)).all() and one.source
        assert one.dataset in UNKNOWN or known(one.dataset) is not None
        assert len(values) == (one.tasks if one.metric == "accuracy_curve" else 1)
    for row in rows(records):  # the last value of a logged curve is the last accuracy of the same source
        values = row["values"]
        if row["kind"] == "log" and "accuracy_curve" in values and "last_accuracy" in values:
            assert values["accuracy_curve"]["mean"][-1] == values["last_accuracy"]["mean"]
    assert {one.routing for one in records if one.method == "tosca"} == {BATCHES}, "it leaks, and is marked as leaking"
    assert {one.adapted for one in records if one.method in ("simplecil", "nmc")} <= {FROZEN, "first session"}
    assert write_field_docs.TARGET.read_text(encoding="utf-8") == write_field_docs.document(), (
        "run: python tools/write_field_docs.py"
    )


def test_only_the_same_protocol_stands_beside_a_comparison(tmp_path, monkeypatch):
    assert {(one.tasks, one.increment) for one in under("cifar100", [5] * 20)} == {(20, 5)}
    assert under("cifar100", [50] + [5] * 10) == [] and under("digits", [2] * 5) == []
    found = {"incremental": "classes", "shots": None, "dataset": "cifar100", "task_sizes": [5] * 20}
    assert len([row for row in beside(found) if row["method"] == "simplecil"]) >= 3  # sources side by side
    assert beside(found | {"shots": 5}) == [] and beside({"incremental": "domains"}) == []
    monkeypatch.chdir(tmp_path)
    labels = np.repeat(np.arange(100), 2)
    features = np.random.default_rng(0).normal(size=(100, 8))[labels].astype("f4")
    made = tosca.import_features(features, labels, dataset="cifar100", test_features=features, test_labels=labels)
    asked = ("compare", "--store", made.path, "--increment", 5, "--methods", "simplecil", "--seeds", 1, "--published")
    shown = json.loads(commands.tosca(*asked, "--json", code=0).stdout)["published"]
    assert len(shown) > 30 and all(row["source"] for row in shown)
    text = commands.tosca("export-runs", "runs/cifar100-compare.sqlite", "--to", "markdown", code=0).stdout
    frozen, adapted = text.index("*published, frozen backbone*"), text.index("*published, adapted backbone*")
    assert frozen < text.index("| tosca\\*") < adapted < text.index("| prism")
    assert "routing by batch in file order" in text and "81.28" in text
    first = next(line for line in text.splitlines() if line.startswith("| simplecil |"))
    assert "**100.00**" in first  # what is published is no rival for the best
    page = extract(Path("runs/cifar100-compare.report.html").read_text())
    assert {row["source"] for row in page["targets"][0]["found"]["published"]} > {"MIN (NeurIPS 2025), Table 1"}


@pytest.mark.parametrize(
    ("dataset", "value", "backbone", "word"),
    [
        ("cifar100", 81.3, "vit_base_patch16_224_in21k", "resize 256"),
        ("cifar100", 83.4, "vit_base_patch16_224_in21k", "resize 224"),
        ("cifar100", 76.2, "vit_base_patch16_224", "resize 256"),
        ("cub", 86.7, "vit_base_patch16_224_in21k", "resize 256"),
        ("cub", 82.3, "vit_base_patch16_224_in21k", "official split"),
    ],
)
def test_class_means_imply_backbone_transform_and_split(dataset, value, backbone, word):
    found = [one for gap, one in implied(dataset, value) if abs(gap) < 0.15]
    assert found and {one.backbone for one in found} == {backbone}
    assert any(word in one.features + one.note for one in found)


def test_the_command_lists_and_implies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = commands.tosca("reproduce", "--which", "cub=82.3", columns=100).output
    assert "82.28 (+0.02)" in shown and "official split" in shown
    listed = json.loads(commands.tosca("reproduce", "--list", "--json", "--dataset", "vtab").output)
    assert {one["dataset"] for one in listed} == {"vtab"} and len(listed) > 80
    words = " ".join(commands.tosca("reproduce", "--list", "--dataset", "cub").output.split())
    for word in ("--paper simplecil: ", "86.77", "92.24", "repository RanPAC/RanPAC, results table, row 'NCM'"):
        assert word in words
    for wrong, words in (
        (("--which", "digits=50"), "no accuracy of class means"),
        (("--paper", "simplecil"), "no dataset was named"),
    ):
        assert words in commands.tosca("reproduce", *wrong, code=2).output


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_page_of_comparisons_has_the_recorded_numbers(path):
    """docs/comparisons.md, about every learner there is."""
    assert len(TABLES) == 4, "stores"
    recorded = {row["method"]: row["values"] for row in json.loads(path.read_text(encoding="utf-8"))}
    page = (ROOT / "docs" / "comparisons.md").read_text(encoding="utf-8")
    section = page.split(f"<!-- {path.stem} -->")[1].split("<!--")[0]
    shown = dict(re.findall(r"^\| ([a-z0-9-]+)(?:\\\*)? \| (.*) \|$", section, re.MULTILINE))
    shown.pop("method")
    lacking = re.findall(r"^not measured on this store yet: (.*?) *$", section, re.MULTILINE)
    newer = set(lacking[0].split(", ")) if lacking else set()
    assert recorded.keys() == shown.keys() == set(LEARNERS) - newer, "every learner there is, or it says which it lacks"
    for name, row in recorded.items():
        numbers = [cell.strip("* ") for cell in shown[name].split("|")[:3]]
        for text, column in zip(numbers, ("average_accuracy", "last_accuracy", "forgetting"), strict=True):
            mean, spread = (float(part) for part in text.split(" ± "))
            assert (mean, spread) == pytest.approx((row[column]["mean"], row[column]["spread"]), abs=0.0051)
