"""`tosca forget` and `tosca undo`: take a class out of a model, and go back one step."""

from __future__ import annotations

from typing import Annotated

import typer

from tosca_cache.cli.learn import Device, ModelPath
from tosca_cache.cli.options import Plugins
from tosca_cache.terminal import echo
from tosca_cache.text import one_line


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
    from tosca_cache.model.folder import writing
    from tosca_cache.model.saved import model_folder, open_model, save_model

    open_model(model, device=device)  # so that nothing is made where there is no model
    folder = model_folder(model)
    with writing(folder):
        opened = open_model(model, device=device)
        exact = {name: opened.forget(name) for name in dict.fromkeys(names)}
        save_model(opened, folder)
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


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    app.command()(forget)
    app.command()(undo)
