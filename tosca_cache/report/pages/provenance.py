"""Where the numbers of a part come from: version, machine, store, and the commands that repeat it."""

from __future__ import annotations

from collections.abc import Sequence

from tosca_cache.report.pages.blocks import Cell, Facts, Value

READS = "What made these numbers; the same fingerprint means the same features, bit for bit."
REPEAT = "Commands that make these numbers again, to be typed in the folder in which the first was."


def origin_facts(made: Value, more: Sequence[tuple[str, Cell]] = ()) -> Facts:
    """Version, time, store, engine and machine of `runs.directory.origin`, as far as they are known, and more rows."""
    store, machine = made.get("store") or {}, made.get("machine") or {}
    libraries = machine.get("libraries") or {}
    rows = [
        ("tosca_cache", made.get("tosca_cache")),
        ("begun", made.get("begun")),
        ("store", store.get("path")),
        ("fingerprint", store.get("fingerprint")),
        ("engine", made.get("engine")),
        *((key, value) for key, value in machine.items() if key != "libraries"),
        ("libraries", ", ".join(f"{name} {version}" for name, version in libraries.items())),
        *more,
    ]
    known = [(name, str(value)) for name, value in rows if value not in (None, "")]
    return Facts("Where the numbers come from", known, READS)


def repeat_facts(commands: Sequence[tuple[str, str | None]]) -> Facts:
    """The commands that repeat a part: (what, command), those that are known."""
    return Facts("To repeat it", [(what, text) for what, text in commands if text], REPEAT, pre=True)
