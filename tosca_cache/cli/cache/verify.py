"""`tosca cache verify`: every byte of a store looked at, some of it computed again, and what is damaged mended."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal

from tosca_cache.cli.cache.look import StoreArgument, byte_bar, locate
from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Root
from tosca_cache.terminal import echo

if TYPE_CHECKING:
    from tosca_cache.store import Store
    from tosca_cache.store.verify import Verification

Recompute = Annotated[
    int, typer.Option(metavar="K", help="Take K random images through the backbone again, and compare.", min=0)
]
Repair = Annotated[bool, typer.Option("--repair", help="Mend what is damaged: from copies, or computed again.")]
Seed = Annotated[int, typer.Option(help="Of the choice of images to compute again.")]
Dataset = Annotated[
    str | None, typer.Option(help="A name, or the folder of the images.", show_default="where the store says they lay")
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights of the backbone.", show_default="where the store says they lay"),
]


def verify(
    store: StoreArgument,
    root: Root = DEFAULT_ROOT,
    recompute: Recompute = 0,
    repair: Repair = False,
    seed: Seed = 1993,
    dataset: Dataset = None,
    data_root: DataRoot = None,
    weights: Weights = None,
) -> None:
    """Check a store: all checksums, counts, ranges, paths and files; with exit code 1 if anything is wrong.

    With --repair damaged shards are extracted again, and nothing else; it may be interrupted and run again.
    """
    path = locate(store, root)
    elsewhere = {"dataset": dataset, "data_root": data_root, "weights": weights}
    if repair:
        _repair(path, elsewhere)
    found = _verify(path)
    good = found.ok
    if recompute and found.manifest is not None:
        from tosca_cache.store import Store

        good = _recompute(Store(found.path, found.manifest), elsewhere, recompute, seed) and good
    if not good:
        raise typer.Exit(1)


def _verify(path: Path) -> Verification:
    """Reads all of it, and says what is wrong."""
    from tosca_cache.store.verify import verify_store

    with byte_bar(f"verify {path.name}") as move:
        found = verify_store(path, progress=move)
    size, speed = decimal(found.bytes), decimal(int(found.bytes / found.seconds))
    count = len(found.problems)
    verdict = "nothing is wrong" if found.ok else f"{count} problem{'s' * (count > 1)}"
    echo(f"{found.path}: {found.objects} objects, {size} read in {found.seconds:.2f} s, {speed} a second: {verdict}")
    for problem in found.problems:
        echo(f"  {problem}")
    if found.mendable:
        echo(f"mend it: tosca cache verify {shlex.quote(str(found.path))} --repair")
    return found


def _repair(path: Path, elsewhere: dict[str, Any]) -> None:
    from tosca_cache.extract.recompute import repair_store

    def on_shard(done: int, total: int) -> None:
        """A line that passes."""
        echo(f"computed again: {done} of {total} damaged shards", err=True)

    with byte_bar(f"verify {path.name}") as move:
        repaired, notes = repair_store(path, elsewhere, progress=move, on_shard=on_shard)
    for line in repaired.done:
        echo(f"mended: {line}")
    if repaired.changed:
        echo(f"{len(repaired.changed)} objects came out with other bytes than had been recorded, which the manifest")
        echo("and the provenance say now; what the last bits depend on is different here:")
        for line in notes or ("nothing that is recorded (other images or libraries?)",):
            echo(f"    {line}")


def _recompute(store: Store, elsewhere: dict[str, Any], count: int, seed: int) -> bool:
    """One more check, and whether it found nothing; where it cannot be made that is said, too."""
    from tosca_cache.errors import ToscaError
    from tosca_cache.extract.recompute import extraction_again, other_numerics
    from tosca_cache.extract.reuse import TOLERANCE, SourceStore, recompute_sample

    try:
        extraction = extraction_again(store, elsewhere)
        source = SourceStore.matched(store, extraction.dataset)
        found = recompute_sample(extraction.dataset, extraction.backbone, source, count, seed)
    except ToscaError as error:
        echo(f"recompute: could not be compared: {error}")
        return False
    wrong, others = [one for one in found if one.problem], other_numerics(store, extraction)
    largest = max((one.deviation for one in found if one.deviation is not None), default=None)
    tolerance = TOLERANCE[store.spec.precision]
    verdict = f"{len(wrong)} not within the tolerance" if wrong else "within the tolerance"
    measured = "" if largest is None else f", largest deviation {largest:.1e}"
    different = f"; other here: {'; '.join(others)}" if others else ""
    echo(f"recompute: {len(found)} images computed again: {verdict} of {tolerance:.0e}{measured}{different}")
    for one in wrong:
        echo(f"  {one}")
    return not wrong
