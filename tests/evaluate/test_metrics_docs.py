"""The worked examples of docs/metrics.md are what the functions give, and no metric is missing there."""

import doctest
import inspect
from pathlib import Path

import pytest

from tosca_cache.evaluate import metrics

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
HELPERS = {"as_matrix", "on_or_below_diagonal", "mean_over_tasks", "share"}


def test_examples_give_the_printed_numbers():
    failed, tried = doctest.testfile(str(DOCS), module_relative=False, encoding="utf-8")
    assert tried > 15
    assert failed == 0


def public_functions():
    for name, function in inspect.getmembers(metrics, inspect.isfunction):
        if function.__module__ == metrics.__name__ and not name.startswith("_") and name not in HELPERS:
            yield function


@pytest.mark.parametrize("function", list(public_functions()), ids=lambda function: function.__name__)
def test_every_metric_is_documented(function):
    assert function.__name__ in DOCS.read_text(encoding="utf-8")
    assert function.__doc__
