"""First-session adaptation: small modules inside a frozen ViT, trained on the images of the first task alone.

APER (arXiv 2303.07338, section 4) and phase 1 of RanPAC (arXiv 2307.02251, section 4.3): adapt once, freeze, and give
the features of the adapted backbone to whatever learns afterwards. The result is a folder for `tosca extract --backbone`.
"""

from tosca_cache.adapt.request import Adapted, AdaptRequest, run_adapt

__all__ = ["AdaptRequest", "Adapted", "run_adapt"]
