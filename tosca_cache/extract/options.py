"""How to extract: what may be chosen, and what cannot be; imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from tosca_cache.errors import UsageError

MOST_VIEWS = (1 << 16) - 1  # what a store can hold, besides the clean one
_LEAST = {"views": 0, "test_views": 0, "seed": 0, "batch_size": 1, "workers": 1}
_CHOICES = {"store_dtype": ("float16", "float32"), "on_error": ("fail", "skip")}


@dataclass(frozen=True)
class ExtractOptions:
    """How to extract.

    views, test_views: augmented views of a train and of a test row, besides view 0.
    seed: what the views' own seeds derive from.
    normalise: subtract the backbone's mean and divide by its std; otherwise inputs in [0, 1], as published.
    store_dtype: `float16` or `float32`.
    batch_size: views in one forward pass, at most; by device and image size if None.
    workers: threads; if None the cores of this process, or fewer if OMP_NUM_THREADS says so.
    on_error: what to do about an image that cannot be read.
    restart: throw an unfinished store away first.
    reuse: take what finished stores below the same root already have, instead of computing it again.

    Raises `UsageError` for numbers and words that cannot be.
    """

    views: int = 8
    test_views: int = 0
    seed: int = 1993
    normalise: bool = True
    store_dtype: str = "float16"
    batch_size: int | None = None
    workers: int | None = None
    on_error: str = "fail"
    restart: bool = False
    reuse: bool = True

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise _impossible(name, f"at least {least}", value)
            if name in ("views", "test_views") and value > MOST_VIEWS:
                raise _impossible(name, f"at most {MOST_VIEWS}", value)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise _impossible(name, " or ".join(allowed), getattr(self, name))

    @property
    def counts(self) -> dict[str, int]:
        """Augmented views, a split."""
        return {"train": self.views, "test": self.test_views}


def _impossible(name: str, allowed: str, value: object) -> UsageError:
    option = f"--{name.replace('_', '-')}"
    return UsageError(f"{option} must be {allowed}, not {value!r}", where=option, remedy=f"give {option} {allowed}")
