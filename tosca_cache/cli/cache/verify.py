"""`tosca cache verify`: every byte of a store looked at, some of it computed again, and what is damaged mended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.cache.common import AsJson, StoreArgument, locate, readable_size
from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Root
from tosca_cache.terminal import echo, echo_json, make_console

if TYPE_CHECKING:
    from tosca_cache.extract.reconstruct import Sources
    from tosca_cache.store import Store
    from tosca_cache.store.verify import Verification

Recompute = Annotated[
    int, typer.Option(metavar="K", help="Take K random rows and views through the backbone again, and compare.", min=0)
]
Repair = Annotated[bool, typer.Option("--repair", help="Mend what is damaged: from copies, or computed again.")]
Seed = Annotated[int, typer.Option(help="Of the choice of rows and views to compute again.")]
Dataset = Annotated[
    str | None, typer.Option(help="A name, or the folder of the images.", show_default="where the store says they lay")
]
TestFraction = Annotated[
    float | None, typer.Option(help="As in `tosca extract`.", show_default="what the store says, if it does")
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of the backbone.", show_default="where the store says they lay"),
]
Device = Annotated[str | None, typer.Option(help="Where to compute.", show_default="the kind that made the store")]


def verify(
    store: StoreArgument,
    root: Root = DEFAULT_ROOT,
    recompute: Recompute = 0,
    repair: Repair = False,
    seed: Seed = 1993,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    test_fraction: TestFraction = None,
    weights: Weights = None,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Check a store: all checksums, counts, ranges, paths and files; with exit code 1 if anything is wrong.

    With --repair damaged shards are extracted again, and nothing else; it may be interrupted and run again.
    """
    asked = _Asked(locate(store, root), recompute, repair, seed)
    if recompute or repair:
        from tosca_cache.extract.reconstruct import Sources

        asked.sources = Sources(dataset, data_root, test_fraction, weights, device)
    report = _Report(as_json)
    found = _repair_and_verify(asked, report) if repair else _verify(asked.path, report)
    report.on_verified(found)
    if found.manifest is not None and asked.sources is not None:
        from tosca_cache.store import Store

        opened = Store(found.path, found.manifest)
        if recompute:
            report.attempt("recompute", lambda: _recompute(asked, opened))
    report.close()


@dataclass
class _Asked:
    path: Path
    recompute: int
    repair: bool
    seed: int
    sources: Sources | None = None


def _verify(path: Path, report: _Report) -> Verification:
    from tosca_cache.store.verify import verify_store

    with report.bar(f"verify {path.name}") as move:
        return verify_store(path, progress=move)


def _repair_and_verify(asked: _Asked, report: _Report) -> Verification:
    from tosca_cache.extract.repair import repair_store

    with report.bar(f"verify {asked.path.name}") as move:

        def on_shard(done: int, total: int) -> None:
            report.say(f"computed again: {done} of {total} damaged shards", passing=True)

        repaired = repair_store(asked.path, asked.sources, progress=move, on_shard=on_shard)
    report.facts["repair"] = {
        "before": [problem.to_dict() for problem in repaired.before.problems],
        "done": list(repaired.done),
        "changed": list(repaired.changed),
        "notes": list(repaired.notes),
    }
    for line in repaired.done:
        report.say(f"mended: {line}")
    if repaired.changed:
        report.say(
            f"{len(repaired.changed)} objects came out with other bytes than had been recorded, which the manifest"
        )
        report.say("and the provenance say now; what the last bits depend on is different here:")
        for line in repaired.notes or ("nothing that is recorded (other images or libraries?)",):
            report.say(f"    {line}")
    return _verify(asked.path, report) if repaired.done else repaired.before


def _recompute(asked: _Asked, store: Store) -> tuple[dict[str, Any], list[str]]:
    from tosca_cache.extract.compare import TOLERANCE, recompute_sample
    from tosca_cache.extract.reconstruct import Sources, other_numerics, rebuild

    extraction = rebuild(store.path, store.manifest.plan, _provenance(store), asked.sources or Sources())
    found = recompute_sample(extraction.dataset, extraction.backbone, store, asked.recompute, asked.seed)
    largest = max((one.deviation for one in found if one.deviation is not None), default=None)
    facts = {
        "ok": not any(one.problem for one in found),
        "compared": len(found),
        "largest_deviation": largest,
        "tolerance": TOLERANCE[store.spec.precision],
        "other_numerics": other_numerics(store.manifest.plan, extraction),
        "problems": [vars(one) for one in found if one.problem],
    }
    return facts, [str(one) for one in found if one.problem]


def _provenance(store: Store) -> dict[str, Any]:
    """What the store says of its origin; nothing if that is damaged, which has been reported."""
    from tosca_cache.errors import StoreError

    try:
        return store.provenance
    except StoreError:
        return {}


@dataclass
class _Report:
    """What is printed, as it comes or as one JSON object at the end; and the exit code."""

    as_json: bool
    facts: dict[str, Any] = field(default_factory=dict)
    good: bool = True

    @contextmanager
    def bar(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A bar of bytes on a terminal; yields what moves it."""
        from tosca_cache.bars import counting

        with counting(make_console(stderr=True, quiet=self.as_json), name, bytes=True) as change:
            yield lambda done, total: change(completed=done, total=total)

    def say(self, line: str, *, passing: bool = False) -> None:
        """A line; one that is passing goes to standard error."""
        if not self.as_json:
            echo(line, err=passing)

    def on_verified(self, found: Verification) -> None:
        """The result of reading the store."""
        self.facts |= found.to_dict()
        self.good = found.ok
        speed = readable_size(int(found.bytes / found.seconds))
        read = f"{found.objects} objects, {readable_size(found.bytes)} read in {found.seconds:.2f} s, {speed} a second"
        count = len(found.problems)
        self.say(
            f"{found.path}: {read}: " + ("nothing is wrong" if found.ok else f"{count} problem{'s' * (count > 1)}")
        )
        for problem in found.problems:
            self.say(f"  {problem}")
        if found.mendable:
            import shlex

            self.say(f"mend it: tosca cache verify {shlex.quote(str(found.path))} --repair")

    def attempt(self, what: str, check: Callable[[], tuple[dict[str, Any], list[str]]]) -> None:
        """One more check, whose own failure is no reason to leave out the others."""
        from tosca_cache.errors import ToscaError

        try:
            facts, lines = check()
        except ToscaError as error:
            self.facts[what] = {"ok": False, "error": str(error)}
            self.good = False
            self.say(f"{what}: could not be compared: {error}")
            return
        self.facts[what] = facts
        self.good = self.good and facts["ok"]
        self.say(f"{what}: {_summary(facts)}")
        for line in lines:
            self.say(f"  {line}")

    def close(self) -> None:
        """The JSON, and the exit code."""
        if self.as_json:
            echo_json(self.facts | {"ok": self.good})
        if not self.good:
            raise typer.Exit(1)


def _summary(facts: dict[str, Any]) -> str:
    largest = "" if facts["largest_deviation"] is None else f", largest deviation {facts['largest_deviation']:.1e}"
    others = "; other here: " + "; ".join(facts["other_numerics"]) if facts["other_numerics"] else ""
    verdict = "within the tolerance" if facts["ok"] else f"{len(facts['problems'])} not within the tolerance"
    return f"{facts['compared']} views computed again: {verdict} of {facts['tolerance']:.0e}{largest}{others}"
