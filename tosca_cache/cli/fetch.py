"""`tosca fetch`: datasets and weights, downloaded, checked and put in their places."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import echo, echo_json, make_console, resumable

if TYPE_CHECKING:
    from tosca_cache.datasets.fetch import Fetched
    from tosca_cache.datasets.sources import Source

Mirror = Annotated[
    str | None,
    typer.Option(metavar="URL", help="Get archives from URL/ARCHIVE instead of from where they were published."),
]
From = Annotated[
    Path | None, typer.Option("--from", metavar="FILE", help="The archive itself, got by other means; it stays there.")
]
Sha256 = Annotated[
    str | None, typer.Option(metavar="DIGEST", help="What the archive's SHA-256 must be, instead of what is published.")
]


def fetch(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Datasets (see --list), addresses of archives; or backbones."),
    ] = None,
    show_list: Annotated[
        bool, typer.Option("--list", help="List what can be fetched: sizes, sources, checksums.")
    ] = False,
    weights: Annotated[
        bool,
        typer.Option("--weights", help="The names are backbones: arch.tag of timm, or hf-hub:OWNER/NAME[@REVISION]."),
    ] = False,
    mirror: Mirror = None,
    file: From = None,
    sha256: Sha256 = None,
    data_root: DataRoot = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Download datasets (or weights), check their bytes, unpack them safely, and put them where the other commands look.

    Interrupt it at will: the same command goes on with the download. A dataset is there as a whole or not at all.
    """
    from tosca_cache.datasets import resolve_data_root
    from tosca_cache.errors import UsageError

    root = resolve_data_root(data_root)
    if show_list:
        _print_list(root, as_json=as_json)
        return
    if not names:
        raise UsageError(
            "there is nothing to fetch", where="NAME", remedy="name datasets; `tosca fetch --list` has them"
        )
    if len(names) > 1 and (file is not None or sha256 is not None):
        given = "--from" if file is not None else "--sha256"
        raise UsageError(f"{given} is for one dataset", where=given, remedy="fetch them one by one")
    with resumable("it goes on with the download"):
        if weights:
            found = [_weights(name, quiet=as_json) for name in names]
        else:
            how = {"mirror": mirror, "file": file, "sha256": sha256}
            found = [_row(fetch_dataset(name, root, quiet=as_json, **how)) for name in names]
    if as_json:
        echo_json(found)


def fetch_dataset(name: str, data_root: Path, *, quiet: bool = False, **how: Any) -> Fetched:
    """Fetches one dataset with a bar, and says what it is; see `datasets.fetch.fetch` for `how` and what it raises."""
    from tosca_cache.bars import counting
    from tosca_cache.datasets.fetch import fetch as fetch_it
    from tosca_cache.datasets.sources import source_of

    source = source_of(name)
    if not quiet:
        place = how.get("mirror") or how.get("file") or source.origin
        size = f"{source.size / 1e6:,.0f} MB" if source.size else "size not published (told when the download begins)"
        echo(f"{source.name}: {source.archive}, {size}, from {place}")
    with counting(make_console(stderr=True), bytes=True) as step:
        found = fetch_it(source, data_root, step=step, **how)
    if not quiet:
        _print(found)
    return found


def _print(found: Fetched) -> None:
    from tosca_cache.datasets import known

    classes, train, test = found.counts
    images = f"{train} train and {test} test images" if test else f"{train} images"
    echo(f"  {'was there already' if found.was_there else 'here'}: {found.folder} ({classes} classes, {images})")
    if found.record is not None:
        echo(f"  {found.record['bytes']:,} bytes, sha256 {found.record['sha256']}")
        echo(f"  checked: {found.record['checked']}")
    given = str(found.folder) if test else f"{found.folder} --test-fraction 0.2"
    echo(f"  next: tosca extract --dataset {found.source.name if known(found.source.name) else given}")


def _row(found: Fetched) -> dict[str, Any]:
    counts = dict(zip(("classes", "train", "test"), found.counts, strict=True))
    return {"name": found.source.name, "folder": str(found.folder), **counts, "record": found.record}


def _weights(name: str, *, quiet: bool) -> dict[str, Any]:
    """Fetches the weights of one backbone, and says which they are."""
    from tosca_cache.extract.weights import HUB, fetch_weights

    found = fetch_weights(name)
    if not quiet:
        full = ".".join(filter(None, (found["arch"], found["tag"])))
        echo(f"{name}: {full}, from {found['origin']}")
        echo(f"  {found['file']}: {found['size']:,} bytes, sha256 {found['sha256']}")
        of = f"{found['arch']} --weights {found['file']}" if name.startswith(HUB) else full
        echo(f"  next: tosca extract --backbone {of}")
    return found


def _print_list(data_root: Path, *, as_json: bool) -> None:
    from tosca_cache.datasets.fetch import listing

    rows = listing(data_root)
    if as_json:
        echo_json([_listed(*row) for row in rows])
        return
    from rich.table import Table

    console = make_console()
    table = Table(title=f"datasets that can be fetched, into {data_root}", title_justify="left")
    for name in ("name", "size", "classes", "train", "test", "checksum", "status"):
        table.add_column(
            name, justify="right" if name in ("size", "classes", "train", "test") else "left", no_wrap=True
        )
    for source, here, record in rows:
        size = record["bytes"] if record else source.size
        known = "sha256" if source.sha256 else "md5"
        counts = (str(count) if count else "-" for count in source.counts or ())
        state = "here" if here else ("with a browser" if source.url is source.drive is None else "")
        table.add_row(source.name, f"{size / 1e6:,.0f} MB" if size else "?", *counts, known, state)
    console.print(table)
    for source, _, _ in rows:
        console.print(
            f"{source.name}: {source.archive} from {source.origin}; checksum: {source.stated_by}", soft_wrap=True
        )
    console.print("?: the size is not published; it is told when the download begins", soft_wrap=True)


def _listed(source: Source, here: bool, record: dict[str, Any] | None) -> dict[str, Any]:
    counts = dict(zip(("classes", "train", "test"), source.counts or (), strict=True))
    plain = {
        name: getattr(source, name) for name in ("archive", "origin", "size", "md5", "sha256", "stated_by", "place")
    }
    return {"name": source.name, **counts, **plain, "here": here, "record": record}
