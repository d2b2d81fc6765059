"""What `tosca run` says beforehand of its steps `adapt` and `compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tosca_cache.config import TrainConfig
    from tosca_cache.extract.request import ExtractRequest
    from tosca_cache.store import Store


def adapting(config: TrainConfig, source: ExtractRequest, counts: tuple[int, int, int] | None) -> str:
    """What an adaptation with its defaults takes. counts: train and test images and classes, if they are known."""
    from tosca_cache.adapt import AdaptRequest
    from tosca_cache.adapt.estimate import estimate
    from tosca_cache.class_order import Protocol
    from tosca_cache.report.sweeps import duration

    if counts is None:
        return "told when the images are there"
    protocol = Protocol(increment=config.increment, init_cls=config.init_cls, seed=config.seeds[0])
    request = AdaptRequest(source, protocol, Path())
    images = counts[0] * protocol.sizes_of(counts[2])[0] // counts[2]
    return (
        f"at most {request.training.epochs} epochs over about {images} train images of the first task, "
        f"about {duration(estimate(request, images))} for these alone (by a few steps just now)"
    )


def comparing(config: TrainConfig, methods: str, store: Store, ledger: Path) -> str:
    """What is left of a comparison, and what that takes."""
    from tosca_cache.compare.cells import CompareRequest
    from tosca_cache.compare.estimate import estimate
    from tosca_cache.learners.options import method_names
    from tosca_cache.report.sweeps import duration

    found = estimate(CompareRequest(config, method_names(methods), tuple(config.seeds)), store, ledger)
    if found.finished == found.cells:
        return f"all {found.cells} cells are finished"
    rest = f"; without {', '.join(found.untimed)}, not timed" if found.untimed else ""
    done = f", {found.finished} of them finished" if found.finished else ""
    return f"{found.cells} cells{done}; about {duration(found.seconds)} (by a few tasks just now){rest}"
