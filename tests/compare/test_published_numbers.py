"""The table of published numbers: consistent records, what stands beside a comparison, and what class means imply."""

import json
from collections import Counter
from pathlib import Path

import commands
import numpy as np
import pytest
import write_field_docs

import tosca_cache as tosca
from tosca_cache.compare.published import BATCHES, FROZEN, beside, implied, published, rows, under
from tosca_cache.datasets import known
from tosca_cache.report.pages import extract

UNKNOWN = {"cars", "food101", "tinyimagenet"}  # datasets that have no name of ours


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


def test_only_the_same_protocol_stands_beside_a_comparison():
    twenty = under("cifar100", [5] * 20)
    assert {one.tasks for one in twenty} == {20} and {one.increment for one in twenty} == {5}
    assert under("cifar100", [50] + [5] * 10) == [] and under("digits", [2] * 5) == []
    found = {"incremental": "classes", "shots": None, "dataset": "cifar100", "task_sizes": [5] * 20}
    assert len([row for row in beside(found) if row["method"] == "simplecil"]) >= 3  # sources side by side
    assert beside(found | {"shots": 5}) == [] and beside({"incremental": "domains"}) == []


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
    assert "no accuracy of class means" in commands.tosca("reproduce", "--which", "digits=50", code=2).output


def test_published_numbers_stand_below_a_comparison(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = np.repeat(np.arange(100), 2)
    features = np.random.default_rng(0).normal(size=(100, 8))[labels].astype("f4")
    made = tosca.import_features(features, labels, dataset="cifar100", test_features=features, test_labels=labels)
    asked = ("compare", "--store", made.path, "--increment", 5, "--methods", "simplecil", "--seeds", 1, "--published")
    rows = json.loads(commands.tosca(*asked, "--json", code=0).stdout)["published"]
    assert len(rows) > 30 and all(row["source"] for row in rows)
    text = commands.tosca("export-runs", "runs/cifar100-compare.sqlite", "--to", "markdown", code=0).stdout
    frozen, adapted = text.index("*published, frozen backbone*"), text.index("*published, adapted backbone*")
    assert frozen < text.index("| tosca\\*") < adapted < text.index("| prism")
    assert "routing by batch in file order" in text and "81.28" in text
    first = next(line for line in text.splitlines() if line.startswith("| simplecil |"))
    assert "**100.00**" in first  # what is published is no rival for the best
    page = extract(Path("runs/cifar100-compare.report.html").read_text())
    assert {row["source"] for row in page["targets"][0]["found"]["published"]} > {"MIN (NeurIPS 2025), Table 1"}
