"""Makes `import torchvision` work on a machine where its compiled half does not load.

Beside the CPU-only torch, the registry's torchvision (built against CUDA) cannot load its shared library, its operators do
not exist, and `import torchvision` (and timm with it) stops with `operator torchvision::nms does not exist`. We use its
transforms and data sets alone, which are Python. So, and only at that very error, the operators that it registers shape
functions for are declared without an implementation, and the import is done again.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import import_module
from typing import Any

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_KEPT: list[Any] = []  # operators exist as long as the library that declares them


@cache
def ensure_torchvision() -> bool:
    """Imports torchvision, whose missing operators are declared first where needed; call it before importing timm.

    Returns True where it was healthy. Raises what importing it raises where it is absent, or broken in another way.
    """
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    else:
        return True
    import torch

    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    _KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
    for schema in _SCHEMAS:
        _KEPT[0].define(schema)
    import_module("torchvision")
    return False
