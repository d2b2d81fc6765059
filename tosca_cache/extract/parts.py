"""One part of a store, beside processes that make the others; and the joining of what all of them have made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tosca_cache.errors import StoreError
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.store import (
    Part,
    Store,
    StoreInProgress,
    StoreWriter,
    open_store,
    partial_path,
    read_unfinished,
    sweep_up,
)

SHOWN = 5  # incomplete parts that a message names


@dataclass(frozen=True)
class PartOutcome:
    """What there is after a part.

    path: where the finished store is or will be. finished: it is. done, total: shards of the whole store.
    """

    path: Path
    part: Part
    finished: bool
    done: int = 0
    total: int = 0


def extract_part(extraction: Extraction, part: Part, *, show_progress: bool = True) -> PartOutcome:
    """Makes the shards of a part that nobody has made yet; other processes may make other parts at the same time.

    Raises what `pipeline.extract` raises; `StoreBusy` if this part, or all of the store, is being written.
    """
    path = extraction.path
    if path.exists():
        open_store(path)
        return PartOutcome(path, part, finished=True)
    with extraction.open_writer(part) as writer:
        error = extraction.relative_error() if show_progress else None
        extraction.write_shards(writer, error, part.label, show_progress=show_progress)
    found = read_unfinished(partial_path(path))
    if found is None:  # somebody has joined it in the meantime
        return PartOutcome(path, part, finished=path.exists())
    return PartOutcome(path, part, False, len(found.done), len(found.shards))


def join(
    extraction: Extraction,
    *,
    source: dict[str, Any] | None = None,
    command: str = "tosca extract",
    last_run: dict[str, Any] | None = None,
    error: float | None = None,
) -> Store:
    """Checks that all shards are there, gives the store its final name, and opens it; one that is finished is opened.

    command: the `tosca extract` command of this store, for messages. last_run: what the provenance says about the run.
    error: `Extraction.relative_error`, measured here if None.

    Raises `StoreError` if nothing was begun or shards are missing, naming the parts and the commands that make them;
    `StoreBusy` while parts are being written.
    """
    path = extraction.path
    if path.exists():
        sweep_up(path)
        return open_store(path)
    # Nothing is computed here, so it does not matter what the bits would depend on if it were.
    facts = StoreWriter.recorded_numerics(path)
    if facts is None:
        raise StoreError(
            "There is nothing to join: no part of this store has been begun.",
            where=partial_path(path),
            remedy=f"Run {command} --part 1/n and the other parts first. If you have: this command must have the same "
            "options and precision as theirs (--precision auto differs from machine to machine); see `tosca cache ls`.",
        )
    kept = replace(extraction, options=replace(extraction.options, restart=False))
    with kept.open_writer(facts=facts) as writer:
        if writer.pending():
            found = read_unfinished(partial_path(path))
            assert found is not None  # the writer has just read it, and nobody else may touch it
            raise _incomplete(found, command)
        error = extraction.relative_error() if error is None else error
        return kept.finish(writer, source or {}, error, last_run or {})


def _incomplete(found: StoreInProgress, command: str) -> StoreError:
    # What is missing, in the number of parts that it takes the fewest of.
    missing = min((found.missing(count) for count in {part.count for part in found.begun}), key=len, default={})
    left, total = len(found.shards) - len(found.done), len(found.shards)
    lines = [f"The store is not complete: {left} of {total} shards are missing."]
    for part, shards in list(missing.items())[:SHOWN]:
        begun = "" if part in found.begun else " (it was never begun)"
        lines.append(f"    {part.label}: {len(shards)} of {len(part.of(found.shards))} shards are missing{begun}")
    if len(missing) > SHOWN:
        lines.append(f"    and {len(missing) - SHOWN} more parts")
    commands = [f"    {command} --part {part}" for part in missing][:SHOWN] or [f"    {command}"]
    return StoreError(
        "\n".join(lines),
        where=found.folder,
        remedy="\n".join(["Make what is missing, then join again:", *commands]),
    )
