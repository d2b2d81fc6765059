"""Recorded trajectories replay within tolerance, and a changed recording is found out."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import tosca

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("tosca_sgd_cosine", "tosca_r_adam_steplr", "adapter_adamw_cosine", "calibrator_sgd_constant")
DEVIATIONS = ("loss", "module", "head_direction", "prototypes", "logits", "entropy")
KEYS = ["file", *DEVIATIONS, "pred_sample_equal", "pred_batch_equal", "ok"]


def run(*arguments, **how):
    return tosca("conformance", *arguments, **how)


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_golden_recordings_replay(engine):
    files = [GOLDEN / f"{name}.npz" for name in FILES]
    for line in run(*files, "--json", "--engine", engine, code=0).output.splitlines():
        row = json.loads(line)
        assert list(row) == KEYS and row["ok"]
        assert all(row[key] <= 1e-5 for key in DEVIATIONS)
    if engine == "torch":
        assert "worst relative deviation" in run(*files[:2], code=0).output


CHANGES = {
    "loss": ("task1/loss", lambda a: a * (1 + 1e-4)),
    "module": ("task2/final/mlp.0.weight", lambda a: a * (1 + 1e-3)),
    "head_direction": ("task1/final/fc.weight", lambda a: a + 1e-3 * np.roll(a, 1, axis=1)),
    "prototypes": ("task2/prototypes", lambda a: a * (1 + 1e-4)),
    "logits": ("task1/test_logits", lambda a: a + 1e-3),
    "entropy": ("task0/test_entropy", lambda a: a + 1e-3),
    "pred_sample_equal": ("task2/pred_sample", lambda a: np.roll(a, 7)),
    "pred_batch_equal": ("task2/pred_batch8_in_order", lambda a: (a + 1) % 12),
}


def changed(path, name=FILES[0], **arrays):
    """A copy of a recording with other arrays; of `meta` its values are changed."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        np.savez(path, **dict(file) | {key: a(file[key]) if callable(a) else a for key, a in arrays.items()})
    return path


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_recording_fails_where_it_was_changed(tmp_path, key):
    name, change = CHANGES[key]
    path = changed(tmp_path / "changed.npz", **{name: lambda a: change(a).astype(a.dtype)})
    row = json.loads(run(path, "--json", code=1).output)
    others = {k for k in KEYS[1:9] if (row[k] is False if isinstance(row[k], bool) else row[k] > 1e-5)}
    assert others == {key} and not row["ok"]


def test_wrong_settings_and_files_that_are_no_recordings_are_found_out(tmp_path):
    def without_decay(meta):
        return np.array(json.dumps(json.loads(str(meta)) | {"weight_decay": 0.0}))

    run(changed(tmp_path / "changed.npz", "adapter_adamw_cosine", meta=without_decay), code=1)
    (tmp_path / "changed.npz").unlink()
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "empty.npz", meta=np.array("{}"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with (tmp_path / "array.npz").open("wb") as opened:
        np.save(opened, np.zeros((60, 5, 3)))
    changed(tmp_path / "list.npz", meta=np.array("[]"))
    changed(tmp_path / "narrow.npz", xtr=np.zeros((60, 5, 3), np.float32))
    changed(tmp_path / "labels.npz", ytr=np.full(60, 99))
    for path in (*sorted(tmp_path.iterdir()), tmp_path / "absent.npz"):
        assert "error: " in run(path, code=1).output, path
