"""Which tensor of a checkpoint is which: by the paper's notation, or by shapes and order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tosca_cache.errors import ModelError
from tosca_cache.luca.parameters import Luca
from tosca_cache.text import one_line, shortened

NAMES = {
    "LN.weight": "norm_weight",
    "LN.bias": "norm_bias",
    "W_down": "down_weight",
    "b_down": "down_bias",
    "W_up": "up_weight",
    "b_up": "up_bias",
    "S_down": "squeeze_weight",
    "S_up": "excite_weight",
    "W": "weight",
    "sigma": "sigma",
}
Items = list[tuple[str, Tensor]]


@dataclass(frozen=True)
class Part:
    """What a file has: a module's tensors by the names of `Luca`, the head [C, d], its scale [1]; None for what it lacks.

    guessed: which tensor was taken as which, if names did not say it.
    """

    luca: Mapping[str, Tensor] | None = None
    weight: Tensor | None = None
    sigma: Tensor | None = None
    guessed: str = ""


def match(state: Mapping[str, Tensor], path: Path) -> Part:
    """What the tensors of a file are; raises `ModelError` if they are not those of a LuCA module, of a head, or of both."""
    if any(not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise _unknown("a tensor has values that are no finite numbers", path)
    floats = {name: tensor.float().contiguous() for name, tensor in state.items()}
    named = {kind: tensor for name, tensor in floats.items() if (kind := _known(name)) is not None}
    if len(named) == len(floats):
        found, guessed = named, ""
    else:
        taken = _by_shape(list(floats.items()))
        if taken is None:
            shapes = ", ".join(f"{one_line(name)} {list(tensor.shape)}" for name, tensor in floats.items())
            raise _unknown(f"these are not the tensors of a LuCA module: {shortened(shapes)}", path)
        found = {kind: floats[name] for kind, name in taken.items()}
        guessed = ", ".join(f"{kind} = {one_line(name)}" for kind, name in taken.items())
    luca = {name: found[name] for name in Luca._fields if name in found}
    if luca and len(luca) < len(Luca._fields):
        raise _unknown(f"tensors are missing: {', '.join(name for name in Luca._fields if name not in luca)}", path)
    weight, sigma = found.get("weight"), found.get("sigma")
    if (weight is not None and weight.dim() != 2) or (sigma is not None and sigma.numel() != 1):
        raise _unknown("the head is no matrix [classes, d], or its scale no number", path)
    return Part(luca or None, weight, None if sigma is None else sigma.reshape(1), guessed)


def _known(name: str) -> str | None:
    return next((kind for known, kind in NAMES.items() if name == known or name.endswith(f".{known}")), None)


def _by_shape(items: Items) -> dict[str, str] | None:
    """Names of the tensors by what they must be, in a module, a head, or both; None if they are neither.

    A bias follows its weight, and weight and bias of a norm follow each other; squeeze and excitation have no bias.
    """
    scales = [name for name, tensor in items if tensor.numel() == 1]
    if len(scales) > 1:
        return None
    taken = dict(zip(("sigma",), scales, strict=False))
    biased, lone, norms = _layers([item for item in _weights_first(items) if item[1].numel() > 1])
    shapes = {name: tuple(tensor.shape) for name, tensor in items}
    if not biased and not norms and len(lone) == 1:
        return taken | {"weight": lone[0]}
    if len(norms) != 1 or len(biased) != 2 or not 2 <= len(lone) <= 3:
        return None
    d = shapes[norms[0][0]][0]
    if shapes[biased[0][0]][1] != d:
        biased.reverse()
    (down, down_bias), (up, up_bias) = biased
    gates = [
        i for i in range(len(lone) - 1) if shapes[lone[i]] == shapes[lone[i + 1]][::-1] and shapes[lone[i]][1] == d
    ]
    if not gates or shapes[down] != shapes[up][::-1] or shapes[down][1] != d:
        return None
    squeeze, excite = lone[gates[0] : gates[0] + 2]
    head = dict(zip(("weight",), (name for name in lone if name not in (squeeze, excite)), strict=False))
    order = (*norms[0], down, down_bias, up, up_bias, squeeze, excite)
    return taken | dict(zip(Luca._fields, order, strict=True)) | head


def _layers(items: Items) -> tuple[list[tuple[str, str]], list[str], list[tuple[str, str]]]:
    """Names of weights with their biases, of weights without, and of norms, in the order of the tensors."""
    biased: list[tuple[str, str]] = []
    lone: list[str] = []
    norms: list[tuple[str, str]] = []
    place = 0
    while place < len(items):
        name, tensor = items[place]
        is_matrix = tensor.dim() == 2
        vectors = place + is_matrix
        stop = vectors
        while stop < len(items) and items[stop][1].dim() == 1:
            stop += 1
        run = [name for name, _ in items[vectors:stop]]
        if is_matrix and len(run) % 2:
            biased.append((name, run.pop(0)))
        elif is_matrix:
            lone.append(name)
        if len(run) % 2 or stop == place:  # a vector without its like, or a tensor of another kind
            return [], [], []
        norms += list(zip(run[::2], run[1::2], strict=True))
        place = stop
    return biased, lone, norms


def _weights_first(items: Items) -> Items:
    """The tensors in their order, but X.weight before X.bias, and both together."""
    groups: dict[str, Items] = {}
    for name, tensor in items:
        prefix, _, last = name.rpartition(".")
        groups.setdefault(prefix if last in ("weight", "bias") else name, []).append((name, tensor))
    return [item for group in groups.values() for item in sorted(group, key=lambda item: item[0].endswith("bias"))]


def _unknown(problem: str, path: Path) -> ModelError:
    remedy = "give the state dict of a LuCA module a file; the head may have one of its own"
    return ModelError(problem, where=path, remedy=remedy)
