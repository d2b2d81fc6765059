"""Full disks, read-only folders, two writers, rows that must not be stored: one clear error, nothing lost."""

import os

import numpy as np
import pytest
from toy_store import ARRAYS, build, open_writer, publish, toy_arrays
from trees import tree

from tosca_cache.errors import StoreError

PAGE = os.sysconf("SC_PAGE_SIZE")  # a tmpfs takes as much for the smallest file


def test_a_disk_that_is_really_full(mounted, toy):
    folder = mounted(f"size={100 * PAGE}")
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(70 * PAGE))
    with pytest.raises(StoreError, match=r"disk is full(.|\n)*same command again"):
        build(folder / "s")
    ballast.unlink()
    assert tree(build(folder / "s").path) == tree(toy.path)


def test_a_read_only_file_system(mounted):
    folder = mounted("ro")
    with pytest.raises(StoreError, match=r"read-only(.|\n)*--root"):
        open_writer(folder / "s")


def test_something_else_in_the_way(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match=r"in the way|is a file"):
        open_writer(tmp_path / "file" / "s")
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="in the way"):
        open_writer(tmp_path / "s", restart=True)
    assert (tmp_path / "s" / "thesis.tex").exists()
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.geteuid():  # root may write anywhere; the read-only mount stands for this
        with pytest.raises(StoreError, match=r"may not write(.|\n)*--root"):
            open_writer(tmp_path / "closed" / "s")


def test_rows_that_must_not_be_stored_are_refused(tmp_path):
    """Features that are no numbers, paths that cannot be kept, and what does not fit, which is the caller's mistake."""
    rows = {name: values[:14] for name, values in toy_arrays("train").items()}
    with open_writer(tmp_path / "s") as writer:
        shard = writer.pending()[0]
        too_large = r"too large for float16(.|\n)*--store-dtype float32"
        for value, message in ((np.nan, "not finite"), (np.inf, "not finite"), (1e5, too_large)):
            bad = rows["features"].copy()
            bad[3, 1, 5] = value
            with pytest.raises(StoreError, match=message) as caught:
                writer.publish(shard, rows | {"features": bad})
            assert rows["paths"][3] in str(caught.value) and writer.done_rows == 0
        for path in ("../secret.jpg", "/etc/passwd", "", "a/../../b", "\ud800.jpg", "x" * 20_000, "a\0b"):
            with pytest.raises(StoreError, match="cannot be kept"):
                writer.publish(shard, rows | {"paths": (*rows["paths"][:-1], path)})
        for wrong in (
            {"features": np.zeros((14, 2, 24))},
            {"features": np.zeros((14, 3, 24), dtype=int)},
            *({"labels": labels} for labels in (np.full(14, 4), np.full(14, -1), np.zeros(14))),
            {"domains": np.full(14, 2)},
            {"views": np.zeros((14, 3, 5), dtype=int)},
            {"paths": ("a.jpg",)},
            {"skipped": {14: "not in this shard"}},
        ):
            with pytest.raises(ValueError, match=r"must|cannot"):
                writer.publish(shard, rows | wrong, skipped=wrong.get("skipped"))
        writer.publish(shard, rows | {"features": bad}, skipped={3: "bad"})  # whose features nobody asks for
        with pytest.raises(ValueError, match="already"):
            publish(writer, shard, ARRAYS)
    with pytest.raises(ValueError, match="closed"):
        publish(writer, writer.pending()[0], ARRAYS)


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
def test_an_unfinished_store_with_a_damaged_plan_is_not_gone_on_with(tmp_path, name):
    open_writer(tmp_path / "s").close()
    (tmp_path / "s.partial" / name).write_bytes(b"{}")
    with pytest.raises(StoreError, match=r"cannot be trusted(.|\n)*--restart"):
        open_writer(tmp_path / "s")
    open_writer(tmp_path / "s", restart=True).close()
