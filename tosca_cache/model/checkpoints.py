"""Checkpoints of the published code: one file of tensors a task, as models, and models as such files.

A file has the LuCA module of its task (reference: "Unlocking [CLS] Features for Continual Post-Training", arXiv 2502.14762)
and usually the head over the classes seen until then. We write the names of the paper's notation (`NAMES`); files with
other names are matched by the shapes and the order of their tensors. Only tensors are read, never code.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from tosca_cache.errors import ModelError, UsageError
from tosca_cache.extract.weights import read_state_dict
from tosca_cache.files import Limit, file_errors, read_limited
from tosca_cache.luca.parameters import Luca, LucaShape
from tosca_cache.model.card import BackboneCard, ClassCard, HeldOutCard, Step
from tosca_cache.model.checkpoint_names import NAMES, Part, match
from tosca_cache.model.classifier import Model, now

Note = Callable[[str], None]


def write_checkpoints(model: Model, folder: Path) -> list[Path]:
    """Writes a tosca model as a file for each task, and classes.txt with a name for each row of the head; a new folder.

    A file has the module of its task, and the head and its scale over the classes seen until then; the last one has the
    model's temperature and doubt as well. Raises `UsageError` for other models, and `ModelError` if the disk refuses.
    """
    learner = model.learner
    if learner.name != "tosca" or getattr(learner, "router_name", "") != "sample" or not model.card.classes:
        raise UsageError(
            "only a model of the learner tosca with router=sample has checkpoints, one for each of its tasks",
            where=model.path,
            remedy="write this one with --onnx or --pt2",
        )
    names = {index: one.name for one in model.card.classes for index in one.indices}
    if len(names) < model.card.indices:
        raise UsageError(
            "the model has forgotten classes, whose rows of the head a checkpoint would bring back",
            where=model.path,
            remedy="write it with --onnx or --pt2",
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("there is something of this name", where=folder, remedy="give the name of a new folder")
    states, held_out = _states(learner.state()), model.card.held_out
    calibration = {"temperature": held_out.temperature, "doubt": held_out.doubt}
    states[-1] |= {name: torch.tensor(value, dtype=torch.float64) for name, value in calibration.items()}
    digits = len(str(len(states) - 1))
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    with file_errors(folder, ModelError, option="another path"):
        try:
            temporary.mkdir()
            for task, state in enumerate(states):
                torch.save(state, temporary / f"task{task:0{digits}}.pth")
            text = "".join(f"{names[index]}\n" for index in range(model.card.indices))
            (temporary / "classes.txt").write_text(text, encoding="utf-8")
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return sorted(folder.glob("task*.pth"))


def _states(state: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Tensors of every task by the names of `NAMES`, from the state of a `Tosca`."""
    found = []
    for task, (_, stop) in enumerate(state["blocks"].tolist()):
        module = {
            name: state[f"module.{field}"][task].clone() for name, field in NAMES.items() if field in Luca._fields
        }
        head = {"W": state["prototypes"][:stop].clone(), "sigma": state["sigma"].clone()}
        found.append(module | head)
    return found


def read_checkpoints(
    files: Sequence[Path],
    *,
    head: Path | None = None,
    classes: Path | None = None,
    flow: str = "tosca",
    backbone: BackboneCard | None = None,
    dim: int | None = None,
    device: str = "auto",
    note: Note = lambda line: None,
) -> Model:
    """A tosca model from the checkpoints of its tasks, in their order.

    Arguments:
        head: a file with the head, if none of the others has it. classes: a name a line for each row of the head.
        flow: which branches of the modules are used. backbone, dim: what makes the features, and their width.
        note: is told what was assumed.

    Raises `BackboneError` for a file that holds anything but tensors or is damaged, `ModelError` for tensors that are no
    modules of one shape with a head, `UsageError` for names that are not as many as the head has rows.
    """
    given = _in_order(files, note)
    read = [(path, match(read_state_dict(path), path)) for path in (*given, *([head] if head is not None else []))]
    modules = [(path, part) for path, part in read if part.luca is not None]
    heads = [part for _, part in read if part.weight is not None]
    if not modules or not heads:
        missing = "LuCA module" if not modules else "head"
        raise ModelError(
            f"no {missing} is among the tensors of these files",
            where=given[0],
            remedy="give the files of all tasks, and the head's tensors W [classes, d] and sigma with --head FILE",
        )
    for path, part in modules[:1]:
        if part.guessed:
            note(
                f"{path.name}: names are not those of the paper, so tensors are taken by shape and order: {part.guessed}"
            )
    state = _state([part for _, part in modules], heads, note)
    found = _model(state, [path for path, _ in modules], flow, backbone, dim, device)
    names = _names(classes, len(state["prototypes"]))
    told = {name: part.extra[name] for _, part in read for name in part.extra}
    return _finished(found, state, names, HeldOutCard.model_validate(told), given)


def _state(modules: Sequence[Part], heads: Sequence[Part], note: Note) -> dict[str, Tensor]:
    """The state of a `Tosca`: the head is the largest one, its rows those of the tasks in order."""
    sizes = [0 if part.weight is None else len(part.weight) for part in modules]
    last = max(heads, key=lambda part: 0 if part.weight is None else len(part.weight))
    assert last.weight is not None
    classes, tasks = len(last.weight), len(modules)
    if sizes != sorted(set(sizes)) or not sizes[0] or sizes[-1] != classes:
        step = -(-classes // tasks)
        sizes = [min(step * (task + 1), classes) for task in range(tasks)]
        note(f"the files do not say which classes each task brought; taken as {step} a task")
    if last.sigma is None:
        note("no file has the head's scale sigma; it is taken as 1")
    sigma = torch.ones(1) if last.sigma is None else last.sigma
    stacked = {
        f"module.{name}": torch.stack([part.luca[name] for part in modules if part.luca is not None])
        for name in Luca._fields
        if len({part.luca[name].shape for part in modules if part.luca is not None}) == 1
    }
    blocks = torch.tensor([[start, stop] for start, stop in zip([0, *sizes], sizes, strict=False)])
    return stacked | {"prototypes": last.weight, "sigma": sigma, "blocks": blocks}


def _model(
    state: Mapping[str, Tensor],
    files: Sequence[Path],
    flow: str,
    backbone: BackboneCard | None,
    dim: int | None,
    device: str,
) -> Model:
    try:
        d, h, s = (state[f"module.{name}"].shape[1] for name in ("norm_weight", "down_bias", "squeeze_weight"))
        settings = {"flow": flow, "mlp_ratio": d // h, "se_ratio": d // s}
        if LucaShape.from_ratios(d, d // h, d // s) != LucaShape(d, h, s):
            raise ValueError(f"hidden sizes {h} and {s} are no {d} // ratio")
        if dim is not None and dim != d:
            raise ValueError(f"modules are for features of {d} numbers, and the backbone gives {dim}")
        dtype = "float32" if backbone is None else "float16"
        model = Model.create(d, method="tosca", settings=settings, backbone=backbone, dtype=dtype, device=device)
        model.learner.load_state(state)
    except (KeyError, ValueError, ZeroDivisionError) as error:
        why = "modules of several shapes" if isinstance(error, KeyError) else str(error)
        raise ModelError(
            f"the files are no tasks of one model: {why}", where=files[0], remedy="give the files of one run, in order"
        ) from error
    return model


def _finished(
    model: Model, state: Mapping[str, Tensor], names: Sequence[str], held_out: HeldOutCard, files: Sequence[Path]
) -> Model:
    """The model with its card: classes that have one name are one class, as those of several domains are."""
    indices: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        indices.setdefault(name, []).append(index)
    classes = [ClassCard(name=name, indices=places, images=0) for name, places in indices.items()]
    step = Step(what="import", when=now(), classes=list(indices), source=str(files[0].absolute().parent))
    changes = {"classes": classes, "indices": len(names), "tasks": len(state["blocks"]), "held_out": held_out}
    model.card = model.card.model_copy(update=changes | {"history": [step]})
    model.held_out = None
    return model


def _names(file: Path | None, rows: int) -> list[str]:
    if file is None:
        return [f"class_{number}" for number in range(rows)]
    try:
        names = read_limited(file, Limit.CLASS_ORDER).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the names cannot be read", where=file, remedy="give a text file in UTF-8") from error
    if len(names) != rows or not all(names):
        problem = f"{len(names)} names, and the head has {rows} rows" if all(names) else "a name is empty"
        raise UsageError(f"{problem}", where=file, remedy="give a name a line for each row of the head, in their order")
    return names


def _in_order(files: Sequence[Path], note: Note) -> list[Path]:
    """The files by the number at the end of their names, if they have one: a shell lists task10 before task2."""
    numbers = [re.search(r"(\d+)\D*$", path.stem) for path in files]
    found = [int(number[1]) for number in numbers if number is not None]
    if len(set(found)) < len(files) or found == sorted(found):
        return list(files)
    note("files are taken in the order of their numbers")
    return [path for _, path in sorted(zip(found, files, strict=True))]
