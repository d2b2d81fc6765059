"""Where numbers come from: which code, by which command, on which store and machine; of runs, sweeps and comparisons."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import torch

from tosca_cache import __version__
from tosca_cache.devices import describe_machine
from tosca_cache.store import Store


def origin(store: Store, device: torch.device) -> dict[str, Any]:
    """Version, command, time, store and machine, as plain JSON values."""
    return {
        "tosca_cache": __version__,
        "command": sys.argv,
        "begun": datetime.now().astimezone().isoformat(timespec="seconds"),
        "store": {"path": str(store.path), "fingerprint": store.spec.digest()},
        "machine": describe_machine(device),
    }
