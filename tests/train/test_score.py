"""Entropy and prediction by the compiled kernels against the plain formula in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tosca_cache.luca.module import entropy_and_prediction, normalise
from tosca_cache.train.engines import Engine


def unit_rows(rows, dim, seed):
    return normalise(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("name", ["torch", "native"])
@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.integers(1, 150), min_size=1, max_size=4),
    dim=st.integers(1, 70),
    classes=st.integers(1, 60),
    sigma=st.sampled_from([0.0, 1.0, -4.0, 25.0, 200.0]),
)
def test_entropy_and_prediction(name, rows, dim, classes, sigma):
    parts = [unit_rows(n, dim, seed) for seed, n in enumerate(rows)]
    directions = unit_rows(classes, dim, 99)
    entropy, prediction = Engine(name).entropy_and_prediction(parts, directions, torch.tensor([sigma]))
    logits = sigma * (torch.cat(parts).double() @ directions.double().T)
    exact, expected = entropy_and_prediction(logits)
    torch.testing.assert_close(entropy.double(), exact, rtol=1e-5, atol=5e-6)
    # The chosen class is the most likely one, up to rounding of its logit.
    chosen = logits.gather(1, prediction.unsqueeze(1))[:, 0]
    torch.testing.assert_close(chosen, logits.gather(1, expected.unsqueeze(1))[:, 0], rtol=0, atol=1e-4)


def test_zero_rows_are_undecided():
    entropy, _ = Engine("native").entropy_and_prediction([torch.zeros(3, 8)], unit_rows(5, 8, 0), torch.ones(1))
    torch.testing.assert_close(entropy, torch.full((3,), 5.0).log())
