"""`tosca export` and `tosca import-checkpoint`: a model for other programs, and checkpoints of the published code."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tosca_cache.cli.extract import Device, ImgSize, Normalize, Precision
from tosca_cache.cli.learn import ModelPath, Weights
from tosca_cache.cli.options import Plugins
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.model.card import BackboneCard

PUBLISHED = "cifar224"  # a dataset of the published code, whose inputs are not normalised


def export(
    model: ModelPath,
    onnx: Annotated[Path | None, typer.Option(help="Write an ONNX file.", metavar="FILE.onnx")] = None,
    pt2: Annotated[Path | None, typer.Option(help="Write a file of torch.export.", metavar="FILE.pt2")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Write a tosca model as checkpoints, one a task.", metavar="DIR")
    ] = None,
    features_only: Annotated[
        bool, typer.Option("--features-only", help="The learner alone: features in, no backbone.")
    ] = False,
    photos: Annotated[
        Path | None, typer.Option(help="Photos to check the file on.", show_default="those learned", metavar="DIR")
    ] = None,
    weights: Weights = None,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Write a model as one graph for other programs: pixels (or features) in, calibrated probabilities out.

    Each file is run on photos before it gets its name; the largest difference to the model's own probabilities is printed.
    More than 1e-4 is an error (1e-3 where the backbone computes in half precision). For ONNX it computes in float32.
    """
    from tosca_cache.model.checkpoints import write_checkpoints
    from tosca_cache.model.export import export_model
    from tosca_cache.model.saved import open_model

    if onnx is None and pt2 is None and checkpoint is None:
        remedy = "tosca export MODEL --onnx FILE.onnx, --pt2 FILE.pt2 or --checkpoint DIR"
        raise UsageError("say what to write", where="tosca export", remedy=remedy)
    if photos is not None and features_only:
        raise UsageError("there is no backbone in the file", where="--photos", remedy="leave it out")
    opened = open_model(model, device=device)
    if checkpoint is not None:
        files = write_checkpoints(opened, checkpoint)
        shown, flow = one_line(shlex.quote(str(checkpoint))), opened.learner.settings.flow
        echo(f"{one_line(str(checkpoint))}: {len(files)} task{'s' if len(files) > 1 else ''}; read by")
        echo(f"  tosca import-checkpoint NEW.tosca {shown}/*.pth --classes {shown}/classes.txt --flow {flow}")
    if onnx is None and pt2 is None:
        return
    how = {"photos": photos, "weights": weights}
    written, half = export_model(opened, onnx=onnx, pt2=pt2, features_only=features_only, **how)
    what, classes = "rows of features" if features_only else "photos", len(opened.class_names)
    for one in written:
        size = one.path.stat().st_size / 1e6
        echo(f"{one_line(str(one.path))}: {size:.1f} MB, {classes} classes, any batch size")
        echo(f"  largest difference to the model's probabilities on {one.rows} {what}: {one.difference:.1e}")
    if half is not None:
        echo(f"the model itself, in its own precision, says otherwise by up to {half:.1e}")


def import_checkpoint(
    model: Annotated[Path, typer.Argument(help="Folder of the new model (NAME.tosca).", metavar="MODEL")],
    files: Annotated[
        list[Path], typer.Argument(help="One a task, and the head's if no task has it.", metavar="FILE.pth")
    ],
    classes: Annotated[
        Path | None,
        typer.Option(help="A class name a line for each row of the head.", show_default="class_0, class_1, ..."),
    ] = None,
    flow: Annotated[str, typer.Option(help="Branches of the modules: tosca, tosca_r, adapter, calibrator.")] = "tosca",
    backbone: Annotated[
        str | None, typer.Option(help="The backbone, so that the model sees photos.", show_default="features only")
    ] = None,
    weights: Weights = None,
    img_size: ImgSize = None,
    precision: Precision = "auto",
    normalize: Normalize = None,
    device: Device = "auto",
) -> None:
    """Make a model of the learner tosca from checkpoints of the published code, one a task; only tensors are read.

    Tensors have the names of the paper's notation, or are taken by their shapes and order, which is printed.
    """
    from tosca_cache.model.checkpoints import read_checkpoints
    from tosca_cache.model.saved import is_model

    if is_model(model):
        raise UsageError("there is a model already", where=model, remedy="give another path")
    card, dim = (None, None) if backbone is None else _card(backbone, weights, img_size, precision, normalize, device)
    found = read_checkpoints(
        files,
        classes=classes,
        flow=flow,
        backbone=card,
        dim=dim,
        device=device,
        note=lambda line: echo(one_line(line), err=True),
    )
    found.save(model)
    echo(f"{found.card.tasks} tasks, {len(found.class_names)} classes, features of {found.card.dim} numbers")
    echo(f"model: {one_line(str(model))}")


def _card(
    name: str, weights: Path | None, img_size: int | None, precision: str, normalize: str | None, device: str
) -> tuple[BackboneCard, int]:
    from tosca_cache.datasets.decoding import Decoding
    from tosca_cache.devices import resolve_device
    from tosca_cache.extract.backbone import load_backbone
    from tosca_cache.extract.request import default_normalisation
    from tosca_cache.model.teaching import backbone_card

    if normalize not in (None, "timm", "none"):
        problem = f"there is no normalisation {normalize!r}"
        raise UsageError(problem, where="--normalize", remedy="use timm or none")
    found = load_backbone(name, weights=weights, img_size=img_size, device=resolve_device(device), precision=precision)
    normalise = normalize or default_normalisation(PUBLISHED, found.name)
    return backbone_card(found, weights, normalise=normalise == "timm", decoding=Decoding()), found.dim


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    app.command()(export)
    app.command("import-checkpoint")(import_checkpoint)
