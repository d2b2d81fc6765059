"""Whether a store is what an extraction would make, and if not, in which fields it differs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tosca_cache.datasets.decoding import as_published
from tosca_cache.devices import resolve_device
from tosca_cache.errors import StoreError
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.fingerprint import numerics
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.precision import resolve_precision
from tosca_cache.extract.request import ExtractRequest, default_backbone, default_normalisation
from tosca_cache.store import StoreSummary, list_stores, read_unfinished
from tosca_cache.store.spec import compare


@dataclass(frozen=True)
class Comparison:
    """One store beside what is asked for.

    differences: (dotted field, asked for, the store's), sorted; of an unfinished store also its `numerics`. problem: why it
    cannot be compared.
    """

    path: Path
    state: str
    differences: tuple[tuple[str, Any, Any], ...] = ()
    problem: str | None = None

    @property
    def matches(self) -> bool:
        """Whether it is, or is going to be, what is asked for."""
        return self.problem is None and not self.differences

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path),
            "state": self.state,
            "matches": self.matches,
            "differences": [{"field": f, "asked": asked, "store": has} for f, asked, has in self.differences],
            "problem": self.problem,
        }


def compare_stores(request: ExtractRequest) -> tuple[Extraction, list[Comparison]]:
    """What is asked for, and every store of its root beside it: matching ones first, then by the number of differences.

    The weights are loaded once, for their digest, and stay in the CPU's memory. Raises what loading raises.
    """
    extraction = _prepared(request)
    asked = extraction.spec.flat()
    made = numerics(extraction.path, extraction.backbone, extraction.options)
    found = [_compare(summary, asked, made) for summary in list_stores(extraction.root)]
    return extraction, sorted(found, key=lambda c: (c.problem is not None, len(c.differences), str(c.path)))


def _prepared(request: ExtractRequest) -> Extraction:
    """Like `request.prepare`, without moving the weights to the device."""
    device = resolve_device(request.device)
    name = request.backbone or default_backbone(request.dataset)
    backbone = load_backbone(
        name,
        weights=request.weights,
        img_size=request.img_size,
        device=torch.device("cpu"),
        precision=resolve_precision(request.precision, device, name),
    )
    normalise = request.normalise or default_normalisation(request.dataset, backbone.name)
    options = replace(request.options, normalise=normalise == "timm")
    return Extraction(request.load_dataset(), replace(backbone, device=device), request.root, options)


def _compare(summary: StoreSummary, asked: Mapping[str, Any], made: Mapping[str, Any]) -> Comparison:
    if summary.spec is None:
        return Comparison(summary.path, summary.state, problem=summary.problem)
    wanted, has = dict(asked), summary.spec.flat()
    if not summary.spec.imported:  # a fingerprint that does not say how images were decoded means: as published
        silent = {f"transform.{key}": value for key, value in as_published().items()}
        wanted, has = silent | wanted, silent | has
    if summary.state == "unfinished":
        try:
            found = read_unfinished(summary.path)
        except StoreError as error:
            return Comparison(summary.path, summary.state, problem=error.problem)
        if found is not None:
            wanted |= _prefixed(made)
            has |= _prefixed(found.plan.numerics)
    return Comparison(summary.path, summary.state, tuple(compare(wanted, has)))


def _prefixed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """`reused` is left out: which stores something is taken from follows from what there is when a store is begun."""
    return {f"numerics.{key}": value for key, value in facts.items() if key != "reused"}
