"""TOSCA's modules behind the recommended router: what `tosca train` does by default (docs/routers.md)."""

from __future__ import annotations

from typing import Any

from tosca_cache.learners.base import register_learner
from tosca_cache.learners.tosca import Tosca


@register_learner
class ToscaAuto(Tosca):
    """The modules of `tosca`, trained alike. Differs from the paper in how they are asked, and keeps sums over rows."""

    name = "tosca-auto"
    source = "TOSCA (TMLR 2026) with the router `auto`"

    def __init__(self, *, router: str = "auto", **common: Any) -> None:
        super().__init__(router=router, **common)
