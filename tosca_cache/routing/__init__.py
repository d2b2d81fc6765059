"""Which module answers for a sample: one file a router."""

from tosca_cache.routing import classifier as _classifier  # importing a file registers its routers
from tosca_cache.routing import sample as _sample
from tosca_cache.routing import sureness as _sureness
from tosca_cache.routing.base import ROUTERS, Evidence, Router, make_router, register_router

__all__ = ["ROUTERS", "Evidence", "Router", "make_router", "register_router"]
_ = (_classifier, _sample, _sureness)
