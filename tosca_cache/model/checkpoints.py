"""Checkpoints of the published code: one file of tensors a task, as models, and models as such files.

A file has the LuCA module of its task (reference: "Unlocking [CLS] Features for Continual Post-Training", arXiv 2502.14762)
and usually the head over the classes seen until then. We write the names of the paper's notation (`NAMES`); tensors with
other names are matched by their shapes and order. Only tensors are read, never code.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, permutations
from pathlib import Path

import torch
from torch import Tensor

from tosca_cache.errors import ModelError, UsageError
from tosca_cache.extract.weights import read_state_dict
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.luca.parameters import Luca, LucaShape
from tosca_cache.model.card import BackboneCard, ClassCard, Step
from tosca_cache.model.classifier import Model
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
PARTS = (Luca._fields[:2], Luca._fields[2:6], Luca._fields[6:], ("weight",))  # norm, adapter, calibrator; the head
Tensors = Mapping[str, Tensor]


def write_checkpoints(model: Model, folder: Path) -> list[Path]:
    """Writes a tosca model as a file for each task, and classes.txt with a name for each row of the head; a new folder.

    A file has the module of its task, and the head and its scale over the classes seen until then. Raises `UsageError` for
    other models, and `ModelError` if the disk refuses.
    """
    learner, remedy = model.learner, "write this one with --onnx or --pt2"
    names = {index: one.name for one in model.card.classes for index in one.indices}
    if learner.name != "tosca" or getattr(learner, "router_name", "") != "sample" or not names:
        problem = "only a model of the learner tosca with router=sample has checkpoints, one for each of its tasks"
        raise UsageError(problem, where=model.path, remedy=remedy)
    if len(names) < model.card.indices:
        problem = "the model has forgotten classes, whose rows of the head a checkpoint would bring back"
        raise UsageError(problem, where=model.path, remedy=remedy)
    if folder.exists():
        raise UsageError("there is something of this name", where=folder, remedy="give the name of a new folder")
    state, temporary = learner.state(), folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    stops = state["blocks"][:, 1].tolist()
    with file_errors(folder, ModelError, option="another path"):
        try:
            temporary.mkdir()
            for task, stop in enumerate(stops):
                tensors = {field: state[f"module.{field}"][task] for field in Luca._fields}
                tensors |= {"weight": state["prototypes"][:stop], "sigma": state["sigma"]}
                named = {name: tensors[kind].clone() for name, kind in NAMES.items()}
                torch.save(named, temporary / f"task{task:0{len(str(len(stops) - 1))}}.pth")
            text = "".join(f"{names[index]}\n" for index in range(model.card.indices))
            (temporary / "classes.txt").write_text(text, encoding="utf-8")
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return sorted(folder.glob("task*.pth"))


def read_checkpoints(
    files: Sequence[Path],
    *,
    classes: Path | None = None,
    flow: str = "tosca",
    backbone: BackboneCard | None = None,
    dim: int | None = None,
    device: str = "auto",
    note: Callable[[str], None] = lambda line: None,
) -> Model:
    """A tosca model from the checkpoints of its tasks, in their order, and of its head where they do not have it.

    Arguments:
        classes: a name a line for each row of the head; rows of one name, as those of several domains, are one class.
        flow: which branches of the modules are used. backbone, dim: what makes the features, and their width.
        note: is told what was assumed.

    Raises `BackboneError` for a file that holds anything but tensors or is damaged, `ModelError` for tensors that are no
    modules of one shape with a head, `UsageError` for names that are not as many as the head has rows.
    """
    parts = [_match(read_state_dict(path), path, note) for path in files]
    modules, heads = ([part for part in parts if kind in part] for kind in ("norm_weight", "weight"))
    if not modules or not heads:
        problem = f"no {'head' if modules else 'LuCA module'} is among the tensors of these files"
        remedy = "give the files of all tasks, and one with the head's tensors W [classes, d] and sigma"
        raise ModelError(problem, where=files[0], remedy=remedy)
    head = max(heads, key=lambda part: len(part["weight"]))
    blocks = list(pairwise([0, *_stops(modules, len(head["weight"]), note)]))
    try:
        state = {f"module.{name}": torch.stack([part[name] for part in modules]) for name in Luca._fields}
        state |= {"prototypes": head["weight"], "sigma": head["sigma"].reshape(1), "blocks": torch.tensor(blocks)}
        d, h, s = (state[f"module.{name}"].shape[1] for name in ("norm_weight", "down_bias", "squeeze_weight"))
        if dim not in (None, d):
            raise ValueError(f"modules are for features of {d} numbers, and the backbone gives {dim}")
        settings = {"flow": flow, "mlp_ratio": d // h, "se_ratio": d // s}
        dtype = "float32" if backbone is None else "float16"
        model = Model.create(d, method="tosca", settings=settings, backbone=backbone, dtype=dtype, device=device)
        model.learner.load_state(state)
    except (LookupError, RuntimeError, ValueError, ZeroDivisionError) as error:
        raise _unknown(f"the files are no tasks of one model: {error}", files[0]) from error
    indices: dict[str, list[int]] = {}
    rows = blocks[-1][1]
    for index, name in enumerate([f"class_{n}" for n in range(rows)] if classes is None else _names(classes, rows)):
        indices.setdefault(name, []).append(index)
    cards = [ClassCard(name=name, indices=places, images=0) for name, places in indices.items()]
    step = Step(what="import", classes=list(indices), source=str(files[0].absolute().parent))
    changes = {"classes": cards, "indices": rows, "tasks": len(blocks), "history": [step]}
    model.card, model.held_out = model.card.model_copy(update=changes), None
    return model


def _stops(modules: Sequence[Tensors], classes: int, note: Callable[[str], None]) -> list[int]:
    """Classes seen after each task: the rows of its head, or equally many a task where files do not have one."""
    stops = [len(part.get("weight", ())) for part in modules]
    if stops[-1] == classes and all(start < stop for start, stop in pairwise([0, *stops])):
        return stops
    step = -(-classes // len(modules))
    note(f"the files do not say which classes each task brought; taken as {step} a task")
    return [min(step * (task + 1), classes) for task in range(len(modules))]


def _match(state: Tensors, path: Path, note: Callable[[str], None]) -> Tensors:
    """The tensors of a file by the names of `Luca`, and weight [C, d] and sigma [1] of the head; either may be missing."""
    if any(not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise _unknown("a tensor has values that are no finite numbers", path)
    kinds = {name: kind for known, kind in NAMES.items() for name in state if f".{name}".endswith(f".{known}")}
    if len(kinds) < len(state):
        kinds = _by_shape({name: tuple(tensor.shape) for name, tensor in state.items()})
        if not kinds:
            shapes = ", ".join(f"{one_line(name)} {list(tensor.shape)}" for name, tensor in state.items())
            raise _unknown(f"these are not the tensors of a LuCA module: {shortened(shapes)}", path)
        guessed = ", ".join(f"{kind} = {one_line(name)}" for name, kind in kinds.items())
        note(f"{path.name}: names are not those of the paper, so tensors are taken by shape and order: {guessed}")
    return {kind: state[name].float().contiguous() for name, kind in kinds.items()}


def _by_shape(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """What tensors are: sigma has one number, and the parts of a module and the head follow each other in any order.

    Within a part they have the order of `PARTS`. Empty if they are neither a module, nor a head, nor both.
    """
    sigma = {name: "sigma" for name, shape in shapes.items() if len(shape) <= 1 and sum(shape) <= 1}
    rest = {name: shape for name, shape in shapes.items() if name not in sigma}
    for parts in (*permutations(PARTS), *permutations(PARTS[:3]), PARTS[3:]):
        kinds = [kind for part in parts for kind in part]
        taken = dict(zip(kinds, rest.values(), strict=False))
        module = {kind: shape for kind, shape in taken.items() if kind != "weight"}
        if len(kinds) == len(rest) and len(sigma) <= 1 and len(taken.get("weight", (0, 0))) == 2 and _fits(module):
            return dict(zip(rest, kinds, strict=True)) | sigma
    return {}


def _fits(module: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether these are the shapes of a module's tensors, or there are none."""
    sizes = [module[kind][:1] for kind in ("norm_weight", "down_bias", "squeeze_weight") if kind in module]
    return not module or (all(sizes) and module == LucaShape(*(size[0] for size in sizes)).luca_shapes())


def _names(file: Path, rows: int) -> list[str]:
    try:
        names = read_limited(file, Limit.CLASS_ORDER).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the names cannot be read", where=file, remedy="give a text file in UTF-8") from error
    if len(names) != rows or not all(names):
        problem = f"{len(names)} names, and the head has {rows} rows" if all(names) else "a name is empty"
        raise UsageError(problem, where=file, remedy="give a name a line for each row of the head, in their order")
    return names


def _unknown(problem: str, path: Path) -> ModelError:
    remedy = "give the state dicts of the LuCA modules of one run, a file each; the head may have one of its own"
    return ModelError(problem, where=path, remedy=remedy)
