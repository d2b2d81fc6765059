"""`tosca adapt`: small modules inside a frozen backbone, trained on the images of the first task."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.extract import Backbone, Device, ImgSize, Normalize, TestFraction, Threads, Weights
from tosca_cache.cli.options import DataRoot
from tosca_cache.terminal import echo, resumable

if TYPE_CHECKING:
    from tosca_cache.adapt import AdaptRequest

DEFAULT_OUT = Path("adapted")

Kind = Annotated[
    str,
    typer.Option(
        help="adapter (beside every MLP), ssf (factors and shifts), lora (queries and values), vpt (prompt tokens in every "
        "block), or film (factors and shifts of the norms)."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Bottleneck of adapter, rank of lora, prompt tokens of vpt.", show_default="64, 8, 5, as published"
    ),
]
Rate = Annotated[
    float | None, typer.Option(help="Learning rate at the start.", show_default="0.01 with sgd, 0.003 with adamw")
]


def adapt(
    dataset: Annotated[
        str, typer.Option(help="A name (see `tosca datasets`), a folder of images, or a CSV file that lists them.")
    ],
    increment: Annotated[int, typer.Option(help="Classes a task.")],
    init_cls: Annotated[
        int | None, typer.Option(help="Classes of the first task.", show_default="as --increment")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the class order, and of the training.")] = 1993,
    shuffle: Annotated[bool, typer.Option("--shuffle/--no-shuffle", help="Draw the class order from the seed.")] = True,
    kind: Kind = "adapter",
    size: Size = None,
    backbone: Backbone = None,
    weights: Weights = None,
    img_size: ImgSize = None,
    epochs: Annotated[int, typer.Option(help="At most.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Images in one step.")] = 48,
    optimizer: Annotated[str, typer.Option(help="sgd (momentum 0.9; APER, RanPAC) or adamw.")] = "sgd",
    lr: Rate = None,
    weight_decay: Annotated[float, typer.Option(help="Of the optimizer.")] = 5e-4,
    scale: Annotated[float, typer.Option(help="Factor of the cosine head at the start; it is learned.")] = 1.0,
    held_out: Annotated[
        float,
        typer.Option(help="Share of the first task's train images that decide when to stop; 0: none, last epoch."),
    ] = 0.1,
    patience: Annotated[int, typer.Option(help="Epochs without a better one after which training stops.")] = 5,
    bf16: Annotated[bool, typer.Option("--bf16", help="Forward passes in bfloat16 (autocast).")] = False,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Gradient checkpointing: less memory, a third more time.")
    ] = False,
    data_root: DataRoot = None,
    out: Annotated[Path, typer.Option(help="Folder of the adapted backbones.")] = DEFAULT_OUT,
    name: Annotated[
        str | None, typer.Option(help="Name of the new one.", show_default="says what it was made from")
    ] = None,
    test_fraction: TestFraction = None,
    normalize: Normalize = None,
    workers: Threads = None,
    device: Device = "auto",
) -> None:
    """Train small modules inside a frozen ViT on the first task's train images: an adapted backbone for `tosca extract`.

    Interrupt it at will: the same command goes on after the last finished epoch.
    """
    from tosca_cache.adapt import run_adapt

    given = dict(locals())
    with resumable("it goes on after the last finished epoch"):
        done = run_adapt(request_of(given))
    if done.was_there:
        echo("this backbone is adapted already; nothing to do")
    record = done.card.training
    best = record["history"][record["best"] - 1]
    if best["held_out_accuracy"] is not None:
        echo(f"epoch {record['best']} is kept: {best['held_out_accuracy']:.1f} % of the held-out images are right")
    echo(f"adapted backbone: {done.path}")


def request_of(given: dict[str, Any]) -> AdaptRequest:
    """What the options of `adapt`, by their names, ask for; raises `UsageError` for what cannot be."""
    from dataclasses import fields

    from tosca_cache.adapt import AdaptRequest
    from tosca_cache.adapt.training import TrainingOptions
    from tosca_cache.class_order import Protocol
    from tosca_cache.extract.fingerprint import ExtractOptions
    from tosca_cache.extract.request import ExtractRequest

    pictures = ("dataset", "backbone", "weights", "img_size", "data_root", "test_fraction", "device")
    source = ExtractRequest(
        **{key: given[key] for key in pictures},
        root=Path(),
        precision="fp32",
        normalise=given["normalize"],
        options=ExtractOptions(seed=given["seed"]),
    )
    return AdaptRequest(
        source,
        Protocol(**{key: given[key] for key in ("increment", "init_cls", "seed", "shuffle")}),
        training=TrainingOptions(**{item.name: given[item.name] for item in fields(TrainingOptions)}),
        **{key: given[key] for key in ("out", "kind", "size", "name", "workers")},
    )
