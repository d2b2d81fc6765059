"""Whether a run was made already: the same settings, on the same features, by the same version."""

from __future__ import annotations

from pathlib import Path

from tosca_cache import __version__
from tosca_cache.config import TrainConfig, to_toml
from tosca_cache.files import Limit, read_limited, strict_json
from tosca_cache.runs.directory import list_runs
from tosca_cache.runs.metrics_file import METRICS
from tosca_cache.store import Store


def find_finished(config: TrainConfig, store: Store, runs: Path) -> Path | None:
    """The latest run below `runs` that training with these settings on this store would only repeat; None if there is none.

    A run that diverged does not count, nor one that cannot be read.
    """
    text, digest = to_toml(config).encode(), store.spec.digest()
    for path in reversed(list_runs(runs)):
        try:
            if read_limited(path / "config.toml", Limit.CONFIG) != text:
                continue
            made = strict_json(read_limited(path / "provenance.json", Limit.PROVENANCE))
            metrics = strict_json(read_limited(path / METRICS, Limit.METRICS))
            same = made["tosca_cache"] == __version__ and made["store"]["fingerprint"] == digest
            if same and not metrics.get("diverged"):
                return path
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue
    return None
