"""Models as ONNX and torch.export files, which are run on real photos before they get their names."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tosca_cache.errors import ModelError, ToscaError, UsageError
from tosca_cache.extract.backbone import Backbone
from tosca_cache.files import file_errors, replacing
from tosca_cache.model.classifier import Model
from tosca_cache.model.export_graph import FEATURES, PIXELS, PROBABILITIES, Graph, metadata
from tosca_cache.model.export_heads import head_of
from tosca_cache.model.export_samples import Sample, feature_sample, photo_sample
from tosca_cache.model.session import encoder_of
from tosca_cache.store.spec import PRECISIONS

FloatArray = NDArray[np.floating[Any]]
Run = Callable[[FloatArray], FloatArray]
BATCHES = (1, 7, 16)  # sizes that are tried, one after the other; the last one for all further rows
MOST_ONNX = 2**31 - 1  # bytes of a file of protobuf
METADATA = "metadata.json"  # within a .pt2 file


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    difference: the largest one to the model's own probabilities on `rows` rows. unexplained: the largest one beyond what
        rounding features to float16 may make of the last bits of float32 (`Sample.between`).
    """

    path: Path
    rows: int
    difference: float
    unexplained: float

    @property
    def bytes(self) -> int:
        """Its size."""
        return self.path.stat().st_size


def export_model(
    model: Model,
    *,
    onnx: Path | None = None,
    pt2: Path | None = None,
    features_only: bool = False,
    photos: Path | None = None,
    store: Path | None = None,
    weights: Path | None = None,
    precision: str | None = None,
) -> tuple[Sample, list[Exported]]:
    """Writes a model as an ONNX file, as a torch.export file, or both; a file gets its name when it has been checked.

    Arguments:
        features_only: the learner alone, features in. precision: of the backbone in the graph; the model's own by default.
        photos, store: what the graph is checked on; what the model has learned by default.

    Raises `UsageError` for a learner, a path or a precision that cannot be, and `ModelError` if the model cannot be
    exported, if what was written differs from it, or if the disk refuses.
    """
    check_targets(onnx, pt2)
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(
            f"there is no precision {precision!r}", where="--precision", remedy=f"use one of {', '.join(PRECISIONS)}"
        )
    model.scores(np.empty((0, model.card.dim), np.float32))  # raises for a model that knows no class
    head_of(model.learner, model.card.dim)
    if features_only:
        sample = feature_sample(model, store)
        return sample, _write(model, sample, None, onnx, pt2)
    encoder = encoder_of(model, weights)
    if precision is not None:
        encoder.card = encoder.card.model_copy(update={"precision": precision})
    if onnx is not None and encoder.card.precision != "fp32":
        raise UsageError(
            f"the backbone computes in {encoder.card.precision}, for which onnxruntime has no operators on a CPU",
            where=onnx,
            remedy="export it in fp32: --precision fp32 (how much that changes is printed); or write --pt2",
        )
    sample = photo_sample(model, encoder, photos)
    return sample, _write(model, sample, encoder.backbone, onnx, pt2)


def _write(
    model: Model, sample: Sample, backbone: Backbone | None, onnx: Path | None, pt2: Path | None
) -> list[Exported]:
    graph, found = Graph(model, backbone).eval(), []
    if onnx is not None:
        _check_size(graph, onnx)
    name = FEATURES if backbone is None else PIXELS
    said = metadata(model, backbone)
    formats = ((onnx, _write_onnx, _onnx_runner), (pt2, _write_pt2, _pt2_runner))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, about torch
        with _its_troubles(model.path):
            program = _exported(graph, sample)
        for path, write, runner in formats:
            if path is not None:
                errors = file_errors(path, ModelError, option="another path")
                with errors, replacing(path) as temporary, _its_troubles(path):
                    write(program, temporary, name, said)
                    differences = _check(runner(temporary), sample, path)
                found.append(Exported(path, len(sample.inputs), *differences))
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
            remedy="export the learner alone: --features-only",
        ) from error


def _exported(graph: Graph, sample: Sample) -> torch.export.ExportedProgram:
    example = torch.from_numpy(np.resize(sample.inputs, (2, *sample.inputs.shape[1:])))
    with torch.no_grad():
        return torch.export.export(graph, (example,), dynamic_shapes={"x": {0: torch.export.Dim("n", min=1)}})


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

    @torch.no_grad()
    def run(rows: FloatArray) -> FloatArray:
        found: FloatArray = module(torch.from_numpy(rows)).numpy()
        return found

    return run


def _check(run: Run, sample: Sample, path: Path) -> tuple[float, float]:
    """The largest differences between what a file and the model say, in batches of `BATCHES`; raises `ModelError`.

    All of it, and what lies beyond `Sample.between`.
    """
    rows = max(len(sample.inputs), sum(BATCHES[:-1]))
    place = np.arange(rows) % len(sample.inputs)  # few rows are asked about again
    parts = np.split(place, [*np.cumsum(BATCHES[:-1]), *range(sum(BATCHES), rows, BATCHES[-1])])
    differences = np.zeros(len(sample.inputs))
    for some in (part for part in parts if len(part)):
        found, expected = run(np.ascontiguousarray(sample.inputs[some])), sample.expected[some]
        if found.shape != expected.shape:
            raise _wrong(f"it gives {list(found.shape)} for {len(some)} rows", path)
        differences[some] = np.abs(found - expected).max(1)
    worst = float((differences - sample.between).max())
    if not worst <= sample.limit:
        raise _wrong(f"its probabilities differ by {worst:.2g} from the model's, more than {sample.limit:g}", path)
    return float(differences.max()), max(worst, 0.0)


def check_targets(onnx: Path | None, pt2: Path | None) -> None:
    """Raises `UsageError` for files that cannot be written so, before anything is computed."""
    for path, suffix in ((onnx, ".onnx"), (pt2, ".pt2")):
        if path is not None and path.suffix != suffix:
            raise UsageError(f"{path.name} does not end in {suffix}", where=path, remedy=f"name it model{suffix}")
        if path is not None and path.exists() and not path.is_file():
            raise UsageError("this is no file, and it is in the way of one", where=path, remedy="give another path")
        if path is not None and not path.parent.is_dir():
            raise UsageError("there is no such folder", where=path.parent, remedy="make it, or give another path")
    for library in ("onnx", "onnxruntime", "onnxscript") if onnx is not None else ():
        if find_spec(library) is None:
            remedy = "pip install 'tosca-cache[export]'"
            raise UsageError(f"ONNX needs {library}, which is not installed", where=onnx, remedy=remedy)


def _check_size(graph: Graph, path: Path) -> None:
    size = sum(t.numel() * t.element_size() for t in graph.state_dict().values())
    if size > MOST_ONNX:
        raise UsageError(
            f"the graph has {size / 2**30:.1f} GiB of weights, and an ONNX file may have 2 GiB",
            where=path,
            remedy="write it with --pt2, or the learner alone with --features-only",
        )


def _wrong(problem: str, path: Path) -> ModelError:
    remedy = "nothing was written; try --precision fp32, or export the learner alone: --features-only"
    return ModelError(f"the exported graph is not the model: {problem}", where=path, remedy=remedy)
