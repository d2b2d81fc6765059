"""`tosca cache verify`: every byte of a store looked at, some of it computed again, and what is damaged mended."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.cli.cache.common import StoreArgument, byte_bar, locate, readable_size
from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Root
from tosca_cache.terminal import echo

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
) -> None:
    """Check a store: all checksums, counts, ranges, paths and files; with exit code 1 if anything is wrong.

    With --repair damaged shards are extracted again, and nothing else; it may be interrupted and run again.
    """
    path = locate(store, root)
    if recompute or repair:  # else torch is not needed
        from tosca_cache.extract.reconstruct import Sources

        sources = Sources(dataset, data_root, test_fraction, weights, device)
    if repair:
        _repair(path, sources)
    found = _verify(path)
    good = found.ok
    if recompute and found.manifest is not None:
        from tosca_cache.store import Store

        good = _recompute(Store(found.path, found.manifest), sources, recompute, seed) and good
    if not good:
        raise typer.Exit(1)


def _verify(path: Path) -> Verification:
    """Reads all of it, and says what is wrong."""
    from tosca_cache.store.verify import verify_store

    with byte_bar(f"verify {path.name}") as move:
        found = verify_store(path, progress=move)
    size, speed = readable_size(found.bytes), readable_size(int(found.bytes / found.seconds))
    count = len(found.problems)
    verdict = "nothing is wrong" if found.ok else f"{count} problem{'s' * (count > 1)}"
    echo(f"{found.path}: {found.objects} objects, {size} read in {found.seconds:.2f} s, {speed} a second: {verdict}")
    for problem in found.problems:
        echo(f"  {problem}")
    if found.mendable:
        echo(f"mend it: tosca cache verify {shlex.quote(str(found.path))} --repair")
    return found


def _repair(path: Path, sources: Sources) -> None:
    from tosca_cache.extract.repair import repair_store

    def on_shard(done: int, total: int) -> None:
        """A line that passes."""
        echo(f"computed again: {done} of {total} damaged shards", err=True)

    with byte_bar(f"verify {path.name}") as move:
        repaired = repair_store(path, sources, progress=move, on_shard=on_shard)
    for line in repaired.done:
        echo(f"mended: {line}")
    if repaired.changed:
        echo(f"{len(repaired.changed)} objects came out with other bytes than had been recorded, which the manifest")
        echo("and the provenance say now; what the last bits depend on is different here:")
        for line in repaired.notes or ("nothing that is recorded (other images or libraries?)",):
            echo(f"    {line}")


def _recompute(store: Store, sources: Sources, count: int, seed: int) -> bool:
    """One more check, and whether it found nothing; where it cannot be made that is said, too."""
    from tosca_cache.errors import ToscaError
    from tosca_cache.extract.compare import TOLERANCE, recompute_sample
    from tosca_cache.extract.reconstruct import other_numerics, rebuild

    try:
        extraction = rebuild(store.path, store.manifest.plan, store.provenance, sources)
        found = recompute_sample(extraction.dataset, extraction.backbone, store, count, seed)
    except ToscaError as error:
        echo(f"recompute: could not be compared: {error}")
        return False
    wrong, others = [one for one in found if one.problem], other_numerics(store.manifest.plan, extraction)
    largest = max((one.deviation for one in found if one.deviation is not None), default=None)
    tolerance = TOLERANCE[store.spec.precision]
    verdict = f"{len(wrong)} not within the tolerance" if wrong else "within the tolerance"
    measured = "" if largest is None else f", largest deviation {largest:.1e}"
    elsewhere = f"; other here: {'; '.join(others)}" if others else ""
    echo(f"recompute: {len(found)} views computed again: {verdict} of {tolerance:.0e}{measured}{elsewhere}")
    for one in wrong:
        echo(f"  {one}")
    return not wrong
