"""The default: the router that held-out train rows prefer on average over four stores (docs/routers.md, "The default")."""

from __future__ import annotations

from tosca_cache.routing.base import register_router
from tosca_cache.routing.product import Pool


@register_router
class Auto(Pool):
    """What is recommended at present; `pool` under a name that stays when a better one is found."""

    name = "auto"
