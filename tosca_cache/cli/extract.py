"""`tosca extract`: stage one, images through the frozen backbone into a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.options import DEFAULT_ROOT, DataRoot, Root

if TYPE_CHECKING:
    from tosca_cache.extract.request import ExtractRequest
    from tosca_cache.store import Store

SHOWN = 10  # skipped images that are printed; the manifest lists all


Backbone = Annotated[
    str | None,
    typer.Option(
        help="Any model of timm (arch or arch.tag), vit_nano, or a name of the reference.",
        show_default="vit_nano for digits and glyphs, otherwise vit_base_patch16_224_in21k",
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
    float | None, typer.Option(help="Share of each class for the test split, for one folder of classes.")
]


def extract(
    dataset: Annotated[str, typer.Option(help="A name (see `tosca datasets`), or a folder of images.")],
    backbone: Backbone = None,
    weights: Annotated[Path | None, typer.Option(help="Local weights instead of a download.", metavar="FILE")] = None,
    views: Annotated[int, typer.Option(help="Augmented views of a train image, besides the clean one.")] = 8,
    test_views: Annotated[int, typer.Option(help="Augmented views of a test image, besides the clean one.")] = 0,
    test_fraction: TestFraction = None,
    data_root: DataRoot = None,
    root: Root = DEFAULT_ROOT,
    precision: Annotated[str, typer.Option(help="auto (bf16 where there is hardware), fp32, bf16 or fp16.")] = "auto",
    store_dtype: Annotated[str, typer.Option(help="float16 or float32: how features are stored.")] = "float16",
    normalize: Normalize = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the backbone's input.", show_default="its own")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Views in one pass.", show_default="by device and size")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads.", show_default="the cores")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    seed: Annotated[int, typer.Option(help="Of the views, and of --test-fraction.")] = 1993,
    on_error: Annotated[str, typer.Option(help="fail or skip: what to do about images that cannot be read.")] = "fail",
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished store away first.")] = False,
) -> None:
    """Take every image of a dataset, in all its views, once through a frozen backbone, and store the features.

    Interrupt it at will: the same command goes on where it was, and the result is the same bit for bit.
    """
    _run(_request(dict(locals())))


def _request(given: dict[str, Any]) -> ExtractRequest:
    """The options by the names of the fields that they fill."""
    from dataclasses import fields

    from tosca_cache.extract.options import ExtractOptions
    from tosca_cache.extract.request import ExtractRequest

    normalise = given.pop("normalize")  # None goes with the dataset, so it is settled later
    how = {field.name: given.pop(field.name) for field in fields(ExtractOptions) if field.name in given}
    return ExtractRequest(**given, normalise=normalise, options=ExtractOptions(**how))


def _run(request: ExtractRequest) -> None:
    from tosca_cache.extract.request import run_request

    try:
        outcome = run_request(request)
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command again, it goes on from the last finished shard", err=True)
        raise typer.Exit(130) from None
    if outcome.was_there:
        typer.echo("this store is finished already; nothing to do")
    _print_skipped(outcome.store)
    typer.echo(f"store: {outcome.store.path}")


def _print_skipped(store: Store) -> None:
    skipped = [row for rows in store.manifest.skipped.values() for row in rows]
    if skipped:
        typer.echo(f"{len(skipped)} images could not be read and are not in the store (its manifest lists them):")
    for row in skipped[:SHOWN]:
        typer.echo(f"  {row.path}: {row.reason}")
    if len(skipped) > SHOWN:
        typer.echo(f"  and {len(skipped) - SHOWN} more")


def register(app: typer.Typer) -> None:
    """Adds the verb."""
    app.command()(extract)
