"""The published values that come with the package, and files of values that are not as they must be."""

import numpy as np
import pytest

from tosca_cache.compare.expectation import find_paper, read_paper, shipped_papers
from tosca_cache.compare.reproduce import wanted_fields
from tosca_cache.datasets import known
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.extract.names import resolve_name
from tosca_cache.learners import LEARNERS
from tosca_cache.tasks import task_sizes

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


def test_features_are_those_of_the_published_transform():
    cub = find_paper("simplecil").of("cub")[0]
    transform = {"normalize": "none", "image_size": 224, "resize": 256, "interpolation": "bicubic"}
    backbone = {"backbone.name": "vit_base_patch16_224", "backbone.tag": "augreg_in21k"}
    expected = {"dataset.name": "cub"} | backbone | {f"transform.{key}": value for key, value in transform.items()}
    assert wanted_fields(cub) == expected


def test_papers_and_datasets_that_are_not_there():
    for call, words in (
        (lambda: find_paper("randpac"), "did you mean 'ranpac'"),
        (lambda: find_paper("simplecil").of("digits"), "no values for 'digits'"),
        (lambda: find_paper("simplecil").of(None), "no dataset was named"),
    ):
        with pytest.raises(UsageError, match=words):
            call()
    assert len(find_paper("nmc").of(None)) == 1


def test_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    (one,) = read_paper(path).expectations
    assert (one.dataset, one.increment, one.seeds, one.interpolation) == ("digits", 2, (1993,), "bicubic")
    path.write_text("[defaults]\nseeds = [1, 2]\n" + GOOD)
    assert read_paper(path).expectations[0].seeds == (1, 2)
    for change, said in (
        (("increment = 2", "incremnt = 2"), "did you mean 'increment'"),
        (("increment = 2", ""), "give increment"),
        (("increment = 2", 'increment = "2"'), "increment: "),
        (("increment = 2", "increment = true"), "increment: "),
        (("increment = 2", "increment = 2\nseeds = []"), "seeds: "),
        (("last_accuracy = 97.0", "accuracy = 97.0"), "values.accuracy: "),
        (("last_accuracy = 97.0", 'last_accuracy = "97"'), "last_accuracy"),
        (("[[expectation]]", ""), "there is no"),
        (("[[expectation]]", "[["), "cannot be read"),
    ):
        path.write_text(GOOD.replace(*change))
        with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
            read_paper(path)
        assert said in str(caught.value)
