"""Makes `import torchvision` work on a machine where its compiled half does not load.

On a machine without a GPU people install the CPU-only torch, while the package registry's torchvision wheel is the one
built against CUDA. Its shared library `_C.so` then cannot be loaded (it wants libcudart), the operators it would
have declared do not exist, and `import torchvision` stops with `operator torchvision::nms does not exist`; so does
`import timm`, which imports torchvision. We need neither `nms` nor any other compiled operator: transforms and
data sets are Python on top of PIL and torch.

So, and only if that very error is met, the operators that torchvision registers shape functions for at import are
declared without an implementation, and the import is done again. Calling one of them still fails, with torch's message
that it has no kernel. Where torchvision is healthy, nothing is declared or changed.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.library import Library

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


@cache
def ensure_torchvision() -> bool:
    """Import torchvision, declaring its missing operators first where needed; call it before importing timm.

    Returns:
        True where torchvision was healthy, False where operators had to be declared.

    Raises:
        ImportError, RuntimeError: torchvision is absent, or broken in another way than the one explained above.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    else:
        return True
    _forget_half_imported()
    _declare_operators()
    importlib.import_module("torchvision")
    return False


def _forget_half_imported() -> None:
    """Drop the submodules that the failed import left behind, so that the next one starts afresh."""
    for name in [name for name in sys.modules if name == "torchvision" or name.startswith("torchvision.")]:
        del sys.modules[name]


@cache
def _declare_operators() -> Library:
    """Declare the operators; the library object must live as long as they are to exist, hence the cache."""
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        library.define(schema)
    return library
