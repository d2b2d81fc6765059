"""Models as ONNX and torch.export files, which are run on real photos before they get their names."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.errors import DatasetError, ModelError, ToscaError, UsageError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.files import file_errors, replacing
from tosca_cache.model.answers import photo_paths
from tosca_cache.model.classifier import Model
from tosca_cache.model.encoder import Encoder
from tosca_cache.model.export_graph import FEATURES, PIXELS, PROBABILITIES, Graph, metadata
from tosca_cache.model.session import encoder_of

FloatArray = NDArray[np.floating[Any]]
Run = Callable[[FloatArray], FloatArray]
Write = Callable[[torch.export.ExportedProgram, Path, str, dict[str, str]], None]
Open = Callable[[Path], Run]
METADATA = "metadata.json"  # within a .pt2 file
PHOTOS, ROWS = 64, 1024  # the most that are tried
LIMIT, LIMIT_HALF = 1e-4, 1e-3


@dataclass(frozen=True)
class Exported:
    """A file that was written. difference: the largest one to the model's own probabilities on `rows` rows."""

    path: Path
    rows: int
    difference: float


def export_model(
    model: Model,
    *,
    onnx: Path | None = None,
    pt2: Path | None = None,
    features_only: bool = False,
    photos: Path | None = None,
    weights: Path | None = None,
) -> tuple[list[Exported], float | None]:
    """Writes a model as an ONNX file, as a torch.export file, or both; a file gets its name when it has been checked.

    For ONNX the backbone computes in float32, as onnxruntime has no half precision on a CPU; of a model in half precision
    the second value is how far its probabilities are from those.

    Arguments:
        features_only: the learner alone, features in.
        photos: what the graph is checked on; some that the model has learned by default, and rows for the learner alone.

    Raises `UsageError` for a learner that cannot be exported, and `ModelError` if the graph cannot be made, if what was
    written differs from the model, or if the disk refuses.
    """
    for library in ("onnx", "onnxruntime", "onnxscript") if onnx is not None else ():
        if find_spec(library) is None:
            remedy = "pip install 'tosca-cache[export]'"
            raise UsageError(f"ONNX needs {library}, which is not installed", where=onnx, remedy=remedy)
    model.scores(np.empty((0, model.card.dim), np.float32))  # raises for a model that knows no class
    targets = [(path, *how) for path, how in ((onnx, ONNX), (pt2, PT2)) if path is not None]
    if features_only:
        rows = _features(model)
        return _write(model, None, targets, rows, model.probabilities(rows), LIMIT), None
    own = encoder_of(model, weights)
    changed = onnx is not None and own.card.precision != "fp32"
    encoder = replace(own, card=own.card.model_copy(update={"precision": "fp32"})) if changed else own
    paths, features = _encoded(encoder, _photos(model, photos))
    expected = model.probabilities(features)
    inputs = encoder.pixels(paths).float().div_(255).permute(0, 3, 1, 2).contiguous().numpy()
    limit = LIMIT if encoder.card.precision == "fp32" else LIMIT_HALF
    written = _write(model, encoder.backbone, targets, inputs, expected, limit)
    half = np.abs(model.probabilities(own.features(paths)) - expected).max() if changed else None
    return written, None if half is None else float(half)


def _write(
    model: Model,
    backbone: Backbone | None,
    targets: Sequence[tuple[Path, Write, Open]],
    inputs: FloatArray,
    expected: FloatArray,
    limit: float,
) -> list[Exported]:
    """Writes the graph of a model; inputs [n, ...] float32, and the model's probabilities for them, [n, C]."""
    graph, said, found = Graph(model, backbone).eval(), metadata(model, backbone), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about torch
        with _its_troubles(model.path), torch.no_grad():
            example = torch.from_numpy(np.resize(inputs, (2, *inputs.shape[1:])))
            program = torch.export.export(graph, (example,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1)}})
        for path, write, opened in targets:
            errors = file_errors(path, ModelError, option="another path")
            with errors, replacing(path) as temporary, _its_troubles(path):
                write(program, temporary, FEATURES if backbone is None else PIXELS, said)
                run, rows = opened(temporary), np.arange(len(inputs))
                parts = [rows[:1], np.resize(rows, 7), *np.split(rows, range(16, len(rows), 16))]
                worst = float(np.max([np.abs(run(inputs[some]) - expected[some]).max() for some in parts]))
                if not worst <= limit:
                    problem = f"its probabilities differ by {worst:.2g}, more than {limit:g}"
                    remedy = "nothing was written; export the learner alone: --features-only"
                    raise ModelError(f"the exported graph is not the model: {problem}", where=path, remedy=remedy)
            found.append(Exported(path, len(inputs), worst))
    return found


@contextmanager
def _its_troubles(where: Path | None) -> Iterator[None]:
    """Turns whatever an architecture makes of torch's tracing, of the exporter or of onnxruntime into a `ModelError`."""
    try:
        yield
    except (ToscaError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        raise ModelError(
            f"the model cannot be exported: {lines[0] if lines else type(error).__name__}"[:300],
            where=where,
            remedy="write it with --pt2 alone, or the learner alone: --features-only",
        ) from error


def _write_onnx(program: torch.export.ExportedProgram, path: Path, name: str, said: dict[str, str]) -> None:
    made = torch.onnx.export(program, dynamo=True, input_names=[name], output_names=[PROBABILITIES], verbose=False)
    assert made is not None
    made.model.metadata_props.update(said)
    made.save(path, external_data=False)


def _write_pt2(program: torch.export.ExportedProgram, path: Path, name: str, said: dict[str, str]) -> None:
    torch.export.save(program, path, extra_files={METADATA: json.dumps(said | {"name": name}, indent=1)})


def _onnx_runner(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda rows: session.run(None, {name: rows})[0]


def _pt2_runner(path: Path) -> Run:
    module = torch.export.load(path).module()
    return torch.no_grad()(lambda rows: module(torch.from_numpy(rows)).numpy())


ONNX, PT2 = (_write_onnx, _onnx_runner), (_write_pt2, _pt2_runner)


def _photos(model: Model, given: Path | None) -> list[Path]:
    """Photos of a folder (or list), or some of those that the model has learned; raises `ModelError` if there are none."""
    learned = [step.source for step in reversed(model.card.history) if step.source and Path(step.source).exists()]
    for source in learned if given is None else [str(given)]:
        with suppress(DatasetError, UsageError):
            return [Path(path) for path in _spread(list(photo_paths([source], io.StringIO())), PHOTOS)]
    raise ModelError(
        "there are no photos to check the graph on", where=given or model.path, remedy="give some: --photos DIR"
    )


def _encoded(encoder: Encoder, paths: list[Path]) -> tuple[list[Path], FloatArray]:
    """Those photos that can be read, and their features, [n, d]."""
    encoded = encoder.encode(paths)
    read = [place for place in range(len(paths)) if place not in encoded.errors]
    if not read:
        raise ModelError("no photo can be read", where=paths[0], remedy="give others: --photos DIR")
    return [paths[place] for place in read], encoded.features[read]


def _features(model: Model) -> FloatArray:
    """The held-out rows of a model, [n, d] float32; random ones if it has none."""
    if model.held_out is None or not len(model.held_out.features):
        return np.random.default_rng(0).standard_normal((PHOTOS, model.card.dim)).astype(np.float32)
    return np.ascontiguousarray(_spread(model.held_out.features, ROWS), np.float32)


def _spread(items: Any, most: int) -> Any:
    """At most so many of the items, evenly spread over them."""
    if len(items) <= most:
        return items
    places = np.linspace(0, len(items) - 1, most).astype(int)
    return items[places] if isinstance(items, np.ndarray) else [items[place] for place in places]
