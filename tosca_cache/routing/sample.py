"""Least entropy, sample by sample."""

from __future__ import annotations

from torch import Tensor

from tosca_cache.routing.base import ModuleOutputs, Router, register_router


@register_router
class SampleEntropy(Router):
    """argmin_i H_i(x): the module that is surest about this very sample. Stores nothing."""

    name = "sample"
    source = "TOSCA (TMLR 2026), inference, without the mean over the test batch"

    def route(self, outputs: ModuleOutputs) -> Tensor:
        """The module of least entropy, [n]."""
        return outputs.entropy.argmin(0)
