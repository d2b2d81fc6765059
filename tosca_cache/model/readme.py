"""The card of a model: README.md with the YAML header that the Hugging Face Hub reads."""

from __future__ import annotations

from tosca_cache import __version__
from tosca_cache.model.card import ModelCard
from tosca_cache.text import markdown

SHOWN = 20  # classes


def readme(name: str, card: ModelCard) -> bytes:
    """The README.md of a model called `name`."""
    accuracy, backbone = card.held_out.accuracy, card.backbone
    images = sum(one.images for one in card.classes)
    head = ["---", "library_name: tosca_cache", "pipeline_tag: image-classification", "tags:", "- image-classification"]
    head += ["- class-incremental-learning"]
    if backbone is not None:
        head += [f'base_model: "{_hub_name(backbone.name, backbone.tag)}"'] if backbone.weights is None else []
    if accuracy is not None:
        head += ["model-index:", f"- name: {_quoted(name)}", "  results:", "  - task:"]
        head += [
            "      type: image-classification",
            "    dataset:",
            "      name: held-out photos",
            "      type: custom",
        ]
        head += ["    metrics:", "    - type: accuracy", f"      value: {accuracy / 100:.4f}"]
    features = (
        f"`{backbone.name}` at {backbone.image_size} pixels in {backbone.precision}"
        if backbone is not None
        else f"features of {card.dim} numbers that were computed elsewhere"
    )
    said = f"{accuracy:.1f} %" if accuracy is not None else "not measured"
    shown = [f"- {markdown(one.name)} ({one.images})" for one in card.classes[:SHOWN]]
    more = len(card.classes) - SHOWN
    body = [
        f"# {markdown(name)}",
        "",
        f"{len(card.classes)} classes, {images} images. Learner `{card.learner.method}` on {features}.",
        f"Accuracy on {card.held_out.images} held-out photos: {said}.",
        "",
        "```",
        "pip install tosca-cache",
        f"tosca predict {_plain(name)} PHOTO.jpg",
        "```",
        "",
        "## Classes (images)",
        "",
        *shown,
        *([f"- and {more} more: see classes.txt"] if more > 0 else []),
        "",
        "## History",
        "",
        *[_line(step.when, step.what, step.classes, step.images) for step in card.history[-SHOWN:]],
        "",
        f"Written by tosca_cache {__version__}.",
    ]
    return "\n".join([*head, "---", "", *body, ""]).encode("utf-8", "backslashreplace")


def _line(when: str, what: str, classes: list[str], images: int) -> str:
    names = ", ".join(markdown(name) for name in classes[:3])
    rest = f" and {len(classes) - 3} more classes" if len(classes) > 3 else ""
    return f"- {when}: {what} {names}{rest}" + (f", {images} images" if images else "")


def _hub_name(name: str, tag: str) -> str:
    return f"timm/{name}.{tag}" if tag else f"timm/{name}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(text: str) -> str:
    import shlex

    return shlex.quote(text).replace("`", "")
