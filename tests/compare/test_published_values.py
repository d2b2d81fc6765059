"""The published values that come with the package, and files of values that are not as they must be."""

from pathlib import Path

import numpy as np
import pytest

from tosca_cache.compare.expectation import Paper, find_paper, read_paper, shipped_papers
from tosca_cache.compare.reproduce import wanted_fields
from tosca_cache.datasets import known
from tosca_cache.errors import ConfigError, UsageError
from tosca_cache.extract.names import resolve_name
from tosca_cache.learners import LEARNERS
from tosca_cache.tasks import task_sizes

PAPERS = shipped_papers()
EVERY = [(name, one) for name in PAPERS for one in find_paper(name).expectations]

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


def test_the_papers():
    assert PAPERS == ("nmc", "ranpac", "simplecil", "simplecil-in1k", "simplecil-mos", "simplecil-seeds")
    assert len(EVERY) == 1 + 18 + 7 + 2 + 7 + 5


@pytest.mark.parametrize(("paper", "one"), EVERY, ids=[f"{name}-{one.dataset}-{one.method}" for name, one in EVERY])
def test_every_value_can_be_run(paper, one):
    dataset = known(one.dataset)
    assert dataset is not None and dataset.name == one.dataset
    assert one.method in LEARNERS
    sizes = task_sizes(dataset.classes, one.increment, one.init_cls)
    assert resolve_name(one.backbone)[1] in ("augreg_in21k", "augreg_in21k_ft_in1k")
    assert one.normalize == "none" and one.image_size == 224 and one.resize in (224, 256)
    assert one.source and one.values
    for name, value in one.values.items():
        numbers = np.atleast_1d(value)
        assert len(numbers) == (len(sizes) if name == "accuracy_curve" else 1)
        assert ((numbers > 30) & (numbers < 100)).all()


@pytest.mark.parametrize(("paper", "one"), EVERY, ids=[f"{name}-{one.dataset}-{one.method}" for name, one in EVERY])
def test_values_hang_together(paper, one):
    """The last value of a curve is A_T, and its mean A-bar; A_T is a multiple of one test row's share."""
    values = one.values
    if "accuracy_curve" in values:
        assert values["accuracy_curve"][-1] == values["last_accuracy"]
        assert np.mean(values["accuracy_curve"]) == pytest.approx(values["average_accuracy"], abs=0.006)
    if paper == "simplecil":
        right = values["last_accuracy"] / 100 * known(one.dataset).test
        assert min(right % 1, 1 - right % 1) <= 0.005 / 100 * known(one.dataset).test + 1e-6


def test_values_of_the_reference():
    cub = find_paper("simplecil").of("cub")[0]
    assert dict(cub.values) == {"last_accuracy": 86.77, "average_accuracy": 92.2375}
    assert cub.seeds == (1993,) and cub.increment == 10 and cub.shuffle
    assert wanted_fields(cub) == {
        "dataset.name": "cub",
        "backbone.name": "vit_base_patch16_224",
        "backbone.tag": "augreg_in21k",
        "transform.normalize": "none",
        "transform.image_size": 224,
        "transform.resize": 256,
        "transform.interpolation": "bicubic",
    }
    assert not find_paper("simplecil").of("vtab")[0].shuffle
    ranpac = {one.method: one.values["last_accuracy_over_tasks"] for one in find_paper("ranpac").of("cifar100")}
    assert ranpac == {"ranpac": 89.0, "ranpac-raw": 87.0, "simplecil": 83.4}
    assert all(one.resize == 224 for one in find_paper("ranpac").of("cifar100"))


def test_papers_and_datasets_that_are_not_there():
    with pytest.raises(UsageError, match="did you mean 'ranpac'"):
        find_paper("randpac")
    with pytest.raises(UsageError, match="no values for 'digits'"):
        find_paper("simplecil").of("digits")
    with pytest.raises(UsageError, match="no dataset was named"):
        find_paper("simplecil").of(None)
    assert len(find_paper("nmc").of(None)) == 1


def read(folder: Path, text: str) -> Paper:
    path = folder / "mine.toml"
    path.write_text(text)
    return read_paper(path)


def test_a_file_of_ones_own(tmp_path):
    (one,) = read(tmp_path, GOOD).expectations
    assert (one.dataset, one.increment, one.seeds, one.interpolation) == ("digits", 2, (1993,), "bicubic")
    (one,) = read(tmp_path, "[defaults]\nseeds = [1, 2]\n" + GOOD).expectations
    assert one.seeds == (1, 2)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("increment = 2", "incremnt = 2"), "did you mean 'increment'"),
        (("increment = 2", ""), "increment is missing"),
        (("increment = 2", 'increment = "2"'), "increment cannot be '2'"),
        (("increment = 2", "increment = true"), "increment cannot be True"),
        (("increment = 2", "increment = 2\nseeds = []"), "seeds cannot be"),
        (("last_accuracy = 97.0", "accuracy = 97.0"), "values.accuracy cannot be 'accuracy'"),
        (("last_accuracy = 97.0", 'last_accuracy = "97"'), "last_accuracy"),
        (("[[expectation]]", ""), "there is no"),
        (("[[expectation]]", "[["), "cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, change, said):
    with pytest.raises(ConfigError, match=r"mine\.toml") as caught:
        read(tmp_path, GOOD.replace(*change))
    assert said in str(caught.value)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_paper(tmp_path / "none.toml")
