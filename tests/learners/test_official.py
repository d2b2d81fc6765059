"""What each learner says of the official code: all say it, and what is said to be equal is."""

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import reference
from reference.official import CASES

from tosca_cache.learners import LEARNERS

FILES = sorted(path.stem for folder in reference.__path__ for path in Path(folder).glob("official_*.py"))
COMPARED = {}  # {learner: comparisons}
for file in FILES:
    for name, found in import_module(f"reference.{file}").COMPARED.items():
        COMPARED.setdefault(name, []).extend(found)
STARTS = ("equal to the official code (", "equal to the paper's equations (", "differs: ", "no official code: ")
OWN = [name for name, kind in sorted(LEARNERS.items()) if kind.__module__.startswith("tosca_cache.")]


@pytest.mark.parametrize("name", OWN)
def test_a_learner_says_how_it_stands_to_the_official_code(name):
    said = LEARNERS[name].agrees
    assert said.startswith(STARTS)
    assert said.endswith(".")
    assert "equal" not in said or name in COMPARED, "what is equal needs a comparison in tests/reference/official_*.py"


@pytest.mark.parametrize(
    ("name", "number"), [(name, number) for name, found in sorted(COMPARED.items()) for number in range(len(found))]
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.seed}")
def test_what_is_said_to_be_equal_is(name, number, case):
    comparison = COMPARED[name][number]
    ours, plain = comparison.ours(case), comparison.plain(case)
    assert len(ours) == len(plain) > 0
    for found, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(found, expected, rtol=comparison.rtol, atol=comparison.atol)
        if comparison.classes:
            np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
