"""`tosca learn`: teach a model classes from photos, or from a store of features."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.cli.extract import Backbone
from tosca_cache.cli.options import DEFAULT_ROOT, Plugins, Root
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.model.classifier import Model
    from tosca_cache.model.records import Taught

SHOWN = 10  # names in a line
ModelPath = Annotated[Path, typer.Argument(help="Folder of the model (NAME.tosca), or of a run.", metavar="MODEL")]
Weights = Annotated[Path | None, typer.Option(help="Where the backbone's weights are now.")]
LabelledPhotos = Annotated[
    Path | None, typer.Argument(help="A folder with a folder for each class, or a list (.csv: path, label).")
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto.")]


def learn(
    model: ModelPath,
    photos: LabelledPhotos = None,
    store: Annotated[Path | None, typer.Option(help="Learn the train rows of a feature store instead.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Learner of a new model; see `tosca methods`.", show_default="pool")
    ] = None,
    options: Annotated[
        list[str] | None, typer.Option("--set", help="An option of the learner.", metavar="OPTION=VALUE")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a new model.", show_default="1993")] = None,
    backbone: Backbone = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the backbone (.safetensors).")] = None,
    img_size: Annotated[int | None, typer.Option(help="Side of the backbone's input, in pixels.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.", show_default="auto")] = None,
    views: Annotated[
        int | None, typer.Option(help="Augmented views of every photo, besides itself.", show_default="0")
    ] = None,
    root: Root = DEFAULT_ROOT,
    again: Annotated[bool, typer.Option("--again", help="Learn photos that were learned before once more.")] = False,
    with_backbone: Annotated[
        bool, typer.Option("--with-backbone", help="Keep the backbone's weights in the model's folder.")
    ] = False,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Teach a model classes from photos; it is made if it is not there.

    The features of the photos are kept in the cache, so that nothing is computed twice. Photos that were learned before are
    left out.
    """
    given = {name: value for name, value in locals().items() if name != "plugin"}
    from tosca_cache.model.session import Request, teach

    if (photos is None) == (store is None):
        raise UsageError("give photos or a store", where="tosca learn", remedy="tosca learn MODEL.tosca PHOTOS")
    request = Request(**given | {"options": tuple(options or ())})
    _print(*teach(request))


def _print(model: Model, taught: Taught) -> None:
    if taught.left_out:
        echo(f"left out: {taught.left_out} photos that were learned before (--again learns them once more)")
    if not taught.new and not taught.known:
        echo("nothing new was learned")
        return
    for word, images in (("new", taught.new), ("known", taught.known)):
        if images:
            named = ", ".join(f"{one_line(name)} ({count})" for name, count in list(images.items())[:SHOWN])
            rest = f", and {len(images) - SHOWN} more" if len(images) > SHOWN else ""
            classes = f"{len(images)} class{'es' if len(images) > 1 else ''}"
            echo(f"{word}: {classes}, {sum(images.values())} photos: {named}{rest}")
    echo(f"learned in {taught.seconds:.2f} s: {len(model.class_names)} classes")
    parts = [
        *([f"old classes {_percent(taught.before)} before, {_percent(taught.old)} now"] if taught.before else []),
        *([f"new classes {_percent(taught.new_accuracy)}"] if taught.new else []),
    ]
    if model.card.held_out.images:
        echo(f"accuracy on {model.card.held_out.images} held-out photos: {'; '.join(parts)}")
    echo(f"model: {model.path}")


def _percent(value: float | None) -> str:
    return "not measured (one photo each)" if value is None else f"{value:.1f} %"
