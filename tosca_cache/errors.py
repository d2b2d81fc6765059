"""The one vocabulary of errors: what is wrong, where, and what to do.

Everything a user can cause or mend is raised as a `ToscaError`; the CLI prints it without a traceback and exits with its
`exit_code` (2 for a wrong request, 1 for anything else). Other exceptions are bugs and keep their traceback.
"""

from __future__ import annotations

from pathlib import Path

from tosca_cache.text import one_line

__all__ = [
    "BackboneError",
    "ConfigError",
    "ConformanceError",
    "DatasetError",
    "FingerprintMismatch",
    "ImageError",
    "ModelError",
    "RunError",
    "StoreError",
    "ToscaError",
    "ToscaWarning",
    "UsageError",
    "short_of_memory",
]


class ToscaError(Exception):
    """Something the user can mend.

    Arguments:
        problem: what is wrong, one sentence.
        where: the file, folder, key or option concerned.
        remedy: what to do about it, as a command or an imperative sentence.
    """

    exit_code = 1

    def __init__(self, problem: str, *, where: str | Path | None = None, remedy: str | None = None) -> None:
        self.problem = problem
        self.where = None if where is None else str(where)
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        lines = [self.problem]
        if self.where is not None:
            lines.append(f"  where: {one_line(self.where)}")
        if self.remedy is not None:
            lines.append(f"  do:    {self.remedy}")
        return "\n".join(lines)


class ToscaWarning(UserWarning):
    """Something that works, but not as well as it could; the CLI prints it without a place in our code."""


class UsageError(ToscaError):
    """The request itself is wrong: an option, a name, a combination."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or value cannot be used."""


class DatasetError(ToscaError):
    """Images, labels or their layout are not as they must be."""


class ImageError(DatasetError):
    """One image cannot be decoded."""


class BackboneError(ToscaError):
    """A backbone or its weights cannot be loaded or used."""


class StoreError(ToscaError):
    """A feature store is missing, unfinished, damaged or not writable."""


class FingerprintMismatch(StoreError):
    """A store exists, but says it is something else than what was asked for."""


class RunError(ToscaError):
    """A run directory cannot be read or written."""


class ModelError(ToscaError):
    """A model cannot be read, written or asked."""


class ConformanceError(ToscaError):
    """A recorded trajectory cannot be read."""


def short_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory is not enough: Python's own, or one of torch's."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )
