"""Sums of products in float64 over rows of float32."""

import pytest
import torch

from tosca_cache.closed_form.gram import add_gram


@pytest.mark.parametrize("rows", [0, 1, 5, 1300])
def test_rows_of_float32_are_summed_nearly_as_in_float64_whatever_they_have_in_common(rows):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(rows, 300, generator=generator) + 100 * torch.rand(300, generator=generator)
    start = torch.eye(300, dtype=torch.float64)
    found, wanted = add_gram(start.clone(), x), start + x.double().T @ x.double()
    scatter = x.double().sub(x.double().mean(0)).square().sum(0).mean() if rows else 0.0
    assert (found - wanted).abs().max() <= 1e-5 * scatter + 1e-12 * wanted.abs().max()  # rounding of x - mean: 4e-6
    assert torch.equal(found, found.T)
