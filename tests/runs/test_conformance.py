"""Recorded trajectories replay within tolerance, and a changed recording is found out."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import tosca

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = ("tosca_sgd_cosine", "tosca_r_adam_steplr", "adapter_adamw_cosine", "calibrator_sgd_constant")
KEYS = [
    "file",
    "loss",
    "module",
    "head_direction",
    "prototypes",
    "logits",
    "entropy",
    "pred_sample_equal",
    "pred_batch_equal",
    "ok",
]


def run(*arguments, **how):
    return tosca("conformance", *arguments, **how)


@pytest.mark.parametrize("engine", ["torch", "native"])
@pytest.mark.parametrize("name", FILES)
def test_golden_recording_replays(name, engine):
    result = run(GOLDEN / f"{name}.npz", "--json", "--engine", engine, code=0)
    row = json.loads(result.output)
    assert list(row) == KEYS
    assert row["ok"]
    assert all(row[key] <= 1e-5 for key in KEYS[1:7])


def test_several_files_print_a_table_and_one_object_each():
    files = [GOLDEN / f"{name}.npz" for name in FILES[:2]]
    table = run(*files, code=0)
    assert "worst relative deviation" in table.output
    assert [json.loads(line)["ok"] for line in run(*files, "--json").output.splitlines()] == [True, True]


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


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_recording_fails_where_it_was_changed(tmp_path, key):
    with np.load(GOLDEN / "tosca_sgd_cosine.npz") as file:
        arrays = dict(file)
    name, change = CHANGES[key]
    arrays[name] = change(arrays[name]).astype(arrays[name].dtype)
    np.savez(tmp_path / "changed.npz", **arrays)
    result = run(tmp_path / "changed.npz", "--json")
    row = json.loads(result.output)
    assert result.exit_code == 1
    assert not row["ok"]
    others = {k for k in KEYS[1:9] if (row[k] is False if isinstance(row[k], bool) else row[k] > 1e-5)}
    assert others == {key}


def test_a_learning_rate_that_is_wrong_is_found_out(tmp_path):
    with np.load(GOLDEN / "adapter_adamw_cosine.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays["meta"]))
    arrays["meta"] = np.array(json.dumps(meta | {"weight_decay": 0.0}))
    np.savez(tmp_path / "changed.npz", **arrays)
    run(tmp_path / "changed.npz", code=1)


def test_files_that_are_no_recordings(tmp_path):
    (tmp_path / "text.npz").write_text("not a zip")
    np.savez(tmp_path / "empty.npz", meta=np.array("{}"))
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name in ("text.npz", "other.npz", "absent.npz", "empty.npz"):
        result = run(tmp_path / name)
        assert result.exit_code == 1, name
        assert "error:" in result.output


MISFITS = {
    "an array alone": None,
    "meta is a list": {"meta": np.array("[]")},
    "narrow rows": {"xtr": np.zeros((60, 5, 3), np.float32)},
    "labels beyond the classes": {"ytr": np.full(60, 99)},
}


@pytest.mark.parametrize("case", MISFITS)
def test_arrays_that_do_not_fit_each_other_are_one_message(tmp_path, case):
    path = tmp_path / "odd.npz"
    with np.load(GOLDEN / f"{FILES[0]}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    if MISFITS[case] is None:
        with path.open("wb") as opened:
            np.save(opened, arrays["xtr"])
    else:
        np.savez(path, **arrays | MISFITS[case])
    result = run(path, code=1)
    assert "error: " in result.output
