"""`tosca evaluate`: a model against photos whose classes are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tosca_cache.cli.learn import Device, LabelledPhotos, ModelPath, Weights
from tosca_cache.cli.options import DEFAULT_ROOT, Plugins, Root
from tosca_cache.errors import UsageError
from tosca_cache.terminal import echo
from tosca_cache.text import one_line

SHOWN = 5


def evaluate(
    model: ModelPath,
    photos: LabelledPhotos = None,
    store: Annotated[Path | None, typer.Option(help="The test rows of a feature store instead.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    worst: Annotated[int, typer.Option(help="How many classes, confusions and photos to name.", min=0)] = SHOWN,
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
    found = evaluate_model(opened, lesson.features[:, 0], lesson.names, paths, worst=worst)
    if as_json:
        echo(json.dumps(found, allow_nan=False, ensure_ascii=True))
    else:
        _print(found, worst)


def _print(found: dict[str, Any], worst: int) -> None:
    echo(f"{found['images']} photos of {len(found['classes'])} classes: accuracy {found['accuracy']:.1f} %")
    echo(f"mean over classes {found['mean_class_accuracy']:.1f} %")
    echo(f"expected calibration error of the probabilities {found['calibration_error']:.1f} %")
    echo(f"taken for none of the classes: {found['false_alarms']:.1f} % of them")
    unknown = found["unknown"]
    if unknown["images"]:
        echo(
            f"{unknown['images']} photos of classes that it does not know: {unknown['found']:.1f} % are found to be so"
        )
    lowest = sorted(found["classes"].items(), key=lambda item: item[1]["accuracy"])[:worst]
    _block("worst classes", [f"{one_line(name)}: {one['accuracy']:.1f} % of {one['images']}" for name, one in lowest])
    pairs = [f"{one_line(a)} taken for {one_line(b)}: {n}" for a, b, n in found["confusions"][:worst]]
    _block("most often mistaken", pairs)
    photos = [f"{one_line(p)}: {one_line(a)} taken for {one_line(b)}" for p, a, b, _ in found["worst_photos"] if a != b]
    _block("worst photos", photos)


def _block(title: str, lines: list[str]) -> None:
    if lines:
        echo(f"{title}:")
        for line in lines:
            echo(f"  {line}")
