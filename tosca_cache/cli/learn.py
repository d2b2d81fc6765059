"""`tosca learn`, `forget`, `undo` and `evaluate`: teach a model classes, take them out again, and see how right it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tosca_cache.cli.extract import Backbone, Device, ImgSize
from tosca_cache.cli.options import DEFAULT_ROOT, Plugins, Root
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo
from tosca_cache.text import one_line

if TYPE_CHECKING:
    from tosca_cache.model.classifier import Model
    from tosca_cache.model.records import Taught

SHOWN = 10  # names in a line
WORST = 5  # classes, confusions and photos that are named
ModelPath = Annotated[Path, typer.Argument(help="Folder of the model (NAME.tosca), or of a run.", metavar="MODEL")]
Weights = Annotated[Path | None, typer.Option(help="Where the backbone's weights are now.")]
LabelledPhotos = Annotated[
    Path | None, typer.Argument(help="A folder with a folder for each class, or a list (.csv: path, label).")
]


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
    weights: Weights = None,
    img_size: ImgSize = None,
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


def forget(
    model: ModelPath,
    names: Annotated[list[str], typer.Argument(help="Names of classes.", metavar="CLASS")],
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Make a model forget classes.

    Exact where the learner keeps classes apart; otherwise the classes are no longer answered, and the command says that
    traces of them remain.
    """
    from tosca_cache.model.saved import changing

    with changing(model, device=device) as opened:
        exact = {name: opened.forget(name) for name in dict.fromkeys(names)}
    for name, whole in exact.items():
        said = "the model is as if it had never learned it" if whole else "no longer answered; traces of it remain"
        echo(f"forgotten: {one_line(name)}: {said}")
    echo(f"{len(opened.class_names)} classes; `tosca undo` takes this back")


def undo(model: ModelPath) -> None:
    """Take the last change of a model back: the version before it, which is kept, counts again."""
    from tosca_cache.model.folder import undo_version
    from tosca_cache.model.saved import model_folder, open_model

    folder = model_folder(model)
    undo_version(folder)
    opened = open_model(model)
    echo(f"the model is as it was before: {len(opened.class_names)} classes")


def evaluate(
    model: ModelPath,
    photos: LabelledPhotos = None,
    store: Annotated[Path | None, typer.Option(help="The test rows of a feature store instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    weights: Weights = None,
    root: Root = DEFAULT_ROOT,
    device: Device = "auto",
    plugin: Plugins = None,
) -> None:
    """Accuracy of a model on photos whose classes are known, its calibration, and what it takes for what.

    The features of the photos are kept in the cache. Of a folder with test/ or a list with splits, the test photos count.
    """
    from tosca_cache.model.evaluation import evaluate_model
    from tosca_cache.model.saved import open_model
    from tosca_cache.model.session import test_lesson

    if (photos is None) == (store is None):
        raise UsageError("give photos or a store", where="tosca evaluate", remedy="tosca evaluate MODEL.tosca PHOTOS")
    opened = open_model(model, device=device)
    lesson, paths = test_lesson(opened, photos, store, root, weights)
    found = evaluate_model(opened, lesson.features[:, 0], lesson.names, paths, worst=WORST)
    if as_json:
        echo(json.dumps(found, allow_nan=False, ensure_ascii=True))
    else:
        _print_evaluation(found)


def _print_evaluation(found: dict[str, Any]) -> None:
    echo(f"{found['images']} photos of {len(found['classes'])} classes: accuracy {found['accuracy']:.1f} %")
    echo(f"mean over classes {found['mean_class_accuracy']:.1f} %")
    echo(f"expected calibration error of the probabilities {found['calibration_error']:.1f} %")
    echo(f"taken for none of the classes: {found['false_alarms']:.1f} % of them")
    unknown = found["unknown"]
    if unknown["images"]:
        echo(
            f"{unknown['images']} photos of classes that it does not know: {unknown['found']:.1f} % are found to be so"
        )
    lowest = sorted(found["classes"].items(), key=lambda item: item[1]["accuracy"])[:WORST]
    _block("worst classes", [f"{one_line(name)}: {one['accuracy']:.1f} % of {one['images']}" for name, one in lowest])
    pairs = [f"{one_line(a)} taken for {one_line(b)}: {n}" for a, b, n in found["confusions"][:WORST]]
    _block("most often mistaken", pairs)
    photos = [f"{one_line(p)}: {one_line(a)} taken for {one_line(b)}" for p, a, b, _ in found["worst_photos"] if a != b]
    _block("worst photos", photos)


def _block(title: str, lines: list[str]) -> None:
    if lines:
        echo(f"{title}:")
        for line in lines:
            echo(f"  {line}")


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    for verb in (learn, evaluate, forget, undo):
        app.command()(verb)
