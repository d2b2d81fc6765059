"""`tosca extract`: stage one, images through the frozen backbone into a store."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Root
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo, resumable
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.extract.request import ExtractRequest
    from tosca_cache.store import Store

DEFAULT_MAX_PIXELS = 178_956_970  # `datasets.decoding.MAX_PIXELS`, whose import would cost start-up time
SHOWN = 10  # skipped images that are printed; the manifest lists all


Backbone = Annotated[
    str | None,
    typer.Option(
        help="Any model of timm (arch or arch.tag), vit_nano, a name of the reference, or an adapted backbone's folder.",
        show_default="vit_nano for digits and glyphs, otherwise vit_base_patch16_224_in21k",
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Local weights instead of a download.", metavar="FILE")]
ImgSize = Annotated[int | None, typer.Option(help="Side of the backbone's input.", show_default="its own")]
Threads = Annotated[int | None, typer.Option(help="Threads.", show_default="the cores, or OMP_NUM_THREADS")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
Precision = Annotated[
    str, typer.Option(help="auto (bf16 where there is hardware, fp32 for vit_nano), fp32, bf16 or fp16.")
]
Layers = Annotated[
    int, typer.Option(metavar="K", help="Keep the [CLS] of the last K blocks, for learners that use them.")
]
Pool = Annotated[
    str,
    typer.Option(
        help="What is kept of the last block: cls, mean (of the patches), cls+mean, or gem (generalised mean, p = 3).",
        show_default="cls, the backbone's own feature",
    ),
]
Normalize = Annotated[
    str | None,
    typer.Option(
        help="timm: the mean and std of the weights; none: inputs in [0, 1], as the published numbers were made.",
        show_default="none for a published benchmark with a backbone of the reference, otherwise timm",
    ),
]
TestFraction = Annotated[
    float | None,
    typer.Option(help="Share of each class for the test split, for one folder of classes or a list without splits."),
]
Orientation = Annotated[
    str | None,
    typer.Option(
        help="upright: photos are turned by their EXIF orientation; stored: taken as they are stored.",
        show_default="stored for a named benchmark, otherwise upright",
    ),
]
Background = Annotated[
    str | None,
    typer.Option(
        metavar="COLOUR",
        help="Under transparent pixels: white, #808080, ...; none shows the colours that are stored under them.",
        show_default="none for a named benchmark, otherwise white",
    ),
]
Depth = Annotated[
    str | None,
    typer.Option(
        help="scaled: pixels of more than 8 bits are scaled to 8; clipped: all above 255 is white.",
        show_default="clipped for a named benchmark, otherwise scaled",
    ),
]
MaxPixels = Annotated[int, typer.Option(help="Most pixels of an image; one with more cannot be read.")]
Duplicates = Annotated[
    str,
    typer.Option(help="keep, drop or fail: what to do about images that are in train and test, or in several classes."),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="i/n",
        help="Make part i of n (i from 1 to n) of the store, beside processes that make the others.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None, typer.Option(help="Processes of this machine that share the work.", show_default="this process alone")
]


def extract(
    dataset: Annotated[
        str,
        typer.Option(
            help="A name (see `tosca datasets`), a folder of images, a CSV file that lists them, or tables or shards."
        ),
    ],
    backbone: Backbone = None,
    weights: Weights = None,
    with_base: Annotated[
        bool, typer.Option("--with-base", help="Features of the frozen backbone before those of the adapted one.")
    ] = False,
    layers: Layers = 1,
    pool: Pool = "cls",
    views: Annotated[int, typer.Option(help="Augmented views of a train image, besides the clean one.")] = 8,
    test_views: Annotated[int, typer.Option(help="Augmented views of a test image, besides the clean one.")] = 0,
    test_fraction: TestFraction = None,
    data_root: DataRoot = None,
    root: Root = DEFAULT_ROOT,
    precision: Precision = "auto",
    store_dtype: Annotated[str, typer.Option(help="float16 or float32: how features are stored.")] = "float16",
    normalize: Normalize = None,
    orientation: Orientation = None,
    background: Background = None,
    depth: Depth = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    duplicates: Duplicates = "keep",
    img_size: ImgSize = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Views in one pass.", show_default="by device and size")
    ] = None,
    workers: Threads = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="Of the views, and of --test-fraction.")] = 1993,
    on_error: Annotated[str, typer.Option(help="fail or skip: what to do about images that cannot be read.")] = "fail",
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished store away first.")] = False,
    part: PartOption = None,
    jobs: Jobs = None,
) -> None:
    """Take every image of a dataset, in all its views, once through a frozen backbone, and store the features.

    Interrupt it at will: the same command goes on where it was, and the result is the same bit for bit; so it is with
    several workers (--jobs; or --part, and at last the command without it, which finishes the store).
    """
    given = dict(locals())
    other = "--jobs" if jobs is not None else "--restart" if restart else None
    if part is not None and other:
        remedy = "leave one of them out; to begin anew, remove the unfinished store (`tosca cache ls`) first"
        raise UsageError(f"--part cannot be combined with {other}", where=other, remedy=remedy)
    with resumable("it goes on from the last finished shard"):
        _run(request_of(given), part=part, jobs=jobs)


def request_of(given: dict[str, Any]) -> ExtractRequest:
    """What the options of `extract`, by their names, ask for; raises `UsageError` for what cannot be."""
    from dataclasses import fields

    from tosca_cache.extract.fingerprint import ExtractOptions
    from tosca_cache.extract.request import ExtractRequest

    given = {name: value for name, value in given.items() if name not in ("part", "jobs")}
    normalise = given.pop("normalize")  # None goes with the dataset, so it is settled later
    how = {field.name: given.pop(field.name) for field in fields(ExtractOptions) if field.name in given}
    return ExtractRequest(**given, normalise=normalise, options=ExtractOptions(**how))


def _run(request: ExtractRequest, *, part: str | None, jobs: int | None) -> None:
    from tosca_cache.extract.request import extract_part, prepare, run_jobs
    from tosca_cache.store import Part

    chosen = None if part is None else Part.parse(part)
    asked = prepare(request)
    was_there = asked.path.exists()
    if was_there:
        echo("this store is finished already; nothing to do")
    elif chosen is not None:
        found = extract_part(asked, chosen)
        echo(f"{chosen.label} is done; of the whole store {len(found.done)} of {len(found.shards)} shards")
        if len(found.done) == len(found.shards):
            echo("finish it: the same command without --part")
        return
    store = asked.run() if was_there or jobs is None else run_jobs(request, asked, jobs)
    _print_skipped(store, again=was_there)
    echo(f"store: {store.path}")


def _print_skipped(store: Store, *, again: bool) -> None:
    skipped = [row for rows in store.manifest.skipped.values() for row in rows]
    if skipped:
        echo(f"{len(skipped)} images could not be read and are not in the store (its manifest lists them):")
    for row in skipped[:SHOWN]:
        echo(f"  {one_line(row.path)}: {one_line(row.reason)}")
    if len(skipped) > SHOWN:
        echo(f"  and {len(skipped) - SHOWN} more")
    if skipped and again:
        echo(f"to try them again: rm -r {shlex.quote(str(store.path))}, then run this command once more")
