"""A model as one graph: normalisation, backbone, learner and calibration as a torch module, and what it says of itself."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from torch import Tensor, nn

from tosca_cache import __version__
from tosca_cache.extract.backbone import Backbone
from tosca_cache.model.classifier import Model
from tosca_cache.model.export_heads import head_of

PIXELS, FEATURES, PROBABILITIES = "pixels", "features", "probabilities"


class Graph(nn.Module):
    """Pixels [n, 3, S, S] in 0..1, or features [n, d], to calibrated probabilities [n, C]; on the CPU.

    What it gives is `Model.probabilities`: features are rounded as the model's are, class numbers become classes, and the
    held-out temperature and doubt are applied. All is float32 but the backbone, which computes in its own precision.
    """

    mean: Tensor
    std: Tensor
    columns: Tensor

    def __init__(self, model: Model, backbone: Backbone | None = None) -> None:
        super().__init__()
        card = model.card
        self.head = head_of(model.learner, card.dim)
        self.rounded = card.dtype == "float16"
        self.temperature, self.doubt = card.held_out.temperature, card.held_out.doubt
        most = max(len(one.indices) for one in card.classes)
        columns = [(one.indices * most)[:most] for one in card.classes]  # the largest of several stays the largest
        self.register_buffer("columns", torch.tensor(columns))
        self.backbone: nn.Module | None = None
        if backbone is not None and card.backbone is not None:
            transform = backbone.transform(card.backbone.normalise)
            computes = backbone.forward(transform)
            same = backbone.device.type == "cpu"
            self.backbone = computes.model if same else copy.deepcopy(computes.model).cpu()
            self.dtype = computes.dtype
            self.register_buffer("mean", torch.tensor(transform.mean).view(1, 3, 1, 1))
            self.register_buffer("std", torch.tensor(transform.std).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities of the classes, [n, C]."""
        if self.backbone is not None:
            x = self.backbone(((x - self.mean) / self.std).to(self.dtype)).float()
        if self.rounded:
            x = x.half().float()
        scores = self.head(x)[:, self.columns].amax(2)
        softmax = torch.softmax(scores / self.temperature, 1)
        return (1 - self.doubt) * softmax + self.doubt / len(self.columns)


def metadata(model: Model, backbone: Backbone | None) -> dict[str, str]:
    """What a graph says about itself: texts, of which `classes`, `transform` and `calibration` are JSON."""
    card, said = model.card, {}
    if backbone is not None and card.backbone is not None:
        transform = backbone.transform(card.backbone.normalise)
        size = transform.image_size
        said["input"] = (
            f"{PIXELS}: float32 [n, 3, {size}, {size}], RGB in 0..1, after turning upright, resizing the shorter side to "
            f"{transform.resize} ({transform.interpolation}, antialiased) and cropping the middle {size} x {size}"
        )
        said["transform"] = _json(
            {
                **{name: getattr(transform, name) for name in ("resize", "interpolation", "image_size")},
                "antialias": True,
                "crop": "centre",
                "scale": "0..1",
                "normalised_in_graph": {"mean": list(transform.mean), "std": list(transform.std)},
                "decoding": card.backbone.decoding,
            }
        )
        said["backbone"] = f"{card.backbone.name}.{card.backbone.tag}".strip(".")
        said["precision"] = backbone.precision
    else:
        said["input"] = f"{FEATURES}: float32 [n, {card.dim}], as the model's backbone gives them"
    return said | {
        "output": f"{PROBABILITIES}: float32 [n, {len(card.classes)}], in the order of classes",
        "classes": _json(model.class_names),
        "learner": card.learner.method,
        "calibration": _json({"temperature": card.held_out.temperature, "doubt": card.held_out.doubt}),
        "model": card.digest,
        "written_by": f"tosca_cache {__version__}",
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=True)
