"""Growing: nothing is taken from stores that do not fit, of images that have changed, or from what is damaged."""

import os
import shutil
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from growing_help import FEW, OPTIONS, assert_same, contents, draw, make, reused
from PIL import Image

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import ToscaWarning
from tosca_cache.extract.pipeline import Extraction, extract
from tosca_cache.extract.reuse import recorded_sources
from tosca_cache.extract.sources import device_kind
from tosca_cache.store.layout import object_key


def source_stores(dataset, backbone, root):
    """The fingerprints of the stores that something is taken from."""
    with Extraction(dataset, backbone, root, OPTIONS).open_writer() as writer:
        return recorded_sources(writer.numerics)


class TestWhoGivesNothing:
    def test_another_backbone_transform_precision_dtype_or_device(self, old, tiny, tmp_path, monkeypatch):
        one = replace(FEW, views=0, reuse=False)
        others = [
            make(old, replace(tiny, weights_digest="0" * 64), tmp_path, one),
            make(old, replace(tiny, precision="bf16"), tmp_path, one),
            make(old, tiny, tmp_path, replace(one, store_dtype="float16")),
            make(old, tiny, tmp_path, replace(one, normalise=False)),
        ]
        with monkeypatch.context() as patch:
            facts = {"batch_size": 8, "torch": "2", "device": "NVIDIA H200"}
            patch.setattr("tosca_cache.extract.pipeline.numerics", lambda *args: dict(facts))
            others.append(make(old, tiny, tmp_path, one))
        assert source_stores(old, tiny, tmp_path) == () and len({store.path for store in others}) == 5
        kinds = {name: device_kind({"device": name}) for name in ("NVIDIA H200", "cpu", "mps", 3)}
        assert kinds == {"NVIDIA H200": "gpu", "cpu": "cpu", "mps": "mps", 3: None}

    def test_numerics_of_the_same_device_may_differ_and_are_recorded(self, old, tiny, scratch, tmp_path):
        make(old, tiny, tmp_path / "cache", replace(FEW, batch_size=24))
        alike = make(old, tiny, tmp_path / "cache", replace(FEW, views=1, reuse=False))
        grown = make(old, tiny, tmp_path / "cache")
        assert grown.manifest.plan.numerics["reused"][0] == alike.spec.digest()  # though it has less
        assert sorted(str(entry["numerics"]) for entry in grown.provenance["reused"]) == ["{'batch_size': 24}", "{}"]
        assert_same(grown, scratch)

    def test_when_asked_not_to(self, old, tiny, cache, scratch):
        grown = make(old, tiny, cache, replace(OPTIONS, reuse=False))
        assert contents(grown) == contents(scratch)
        assert "reused" not in grown.provenance

    def test_a_folder_of_the_same_name_with_other_pictures(self, old, tiny, tmp_path):
        shutil.copytree(old.root, tmp_path / "elsewhere" / "shapes")
        for number, path in enumerate(sorted((tmp_path / "elsewhere").rglob("*.png"))):
            draw(path, seed=100 + number)
        make(load_dataset(str(tmp_path / "elsewhere" / "shapes")), tiny, tmp_path, FEW)
        with pytest.warns(
            ToscaWarning, match=r"nothing is taken from shapes--.*8 images that were tried, 8 have other"
        ):
            assert source_stores(old, tiny, tmp_path) == ()


LATER = (time.time() + 3600,) * 2  # than any source, however coarse the times of a file system


class TestChangedImages:
    def test_newer_than_the_donor(self, old, tiny, cache, tmp_path, capsys):
        path = "train/class 1/002.png"
        draw(Path(old.root, path), Image.open(Path(old.root, path)).size[::-1])
        os.utime(Path(old.root, path), LATER)
        grown = extract(old, tiny, cache, OPTIONS)
        said = capsys.readouterr().err
        assert "51 views of 23 images; 1 of its images have changed since and are not taken" in said
        assert "left to compute: 57 views of 24 images" in said
        assert reused(grown) == [(23, 14 * 3 + 9)]
        assert_same(grown, make(old, tiny, tmp_path / "scratch"))

    def test_all_newer(self, old, tiny, cache):
        for path in Path(old.root).rglob("*.png"):
            os.utime(path, LATER)
        with pytest.warns(ToscaWarning, match="nothing is taken from .*: 24 of its images have changed since"):
            assert source_stores(old, tiny, cache) == ()

    def test_another_size_under_an_old_date(self, old, tiny, cache, tmp_path):
        """The image is opened for its missing views anyway; all its views are made again."""
        for name in ("001.png", "003.png"):
            draw(Path(old.root, "train", "class 1", name), (200, 100), seed=len(name))
        grown = make_from_doubtful(old, tiny, cache)
        assert reused(grown) == [(22, 13 * 3 + 9)]
        assert_same(grown, make(old, tiny, tmp_path / "scratch"))


def make_from_doubtful(dataset, backbone, root):
    """Makes a store without trying its sources."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tosca_cache.extract.source_check.IMAGES", 0)
        return make(dataset, backbone, root)


class TestDamagedDonors:
    @pytest.mark.parametrize("array", ["features", "views", "paths"])
    def test_what_is_damaged_is_computed(self, old, tiny, few, cache, scratch, array):
        file = cache / few.path.name / object_key("train", array, 1)
        data = bytearray(file.read_bytes())
        data[len(data) // 4] ^= 1
        file.write_bytes(data)
        with pytest.warns(ToscaWarning, match=rf"damaged part of shapes--.*{array} of shard 1 of split train") as said:
            grown = extract(old, tiny, cache, OPTIONS, show_progress=False)
        assert sum("damaged" in str(warning.message) for warning in said) == 1
        lost = 15 if array == "paths" else 5
        assert reused(grown) == [(24 - lost, (15 - lost) * 3 + 9)]
        assert_same(grown, scratch)

    def test_one_that_cannot_be_opened(self, old, tiny, few, cache, scratch):
        (cache / few.path.name / object_key("test", "labels", 0)).unlink()
        with pytest.warns(ToscaWarning, match="labels of shard 0 of split test"):
            grown = extract(old, tiny, cache, OPTIONS, show_progress=False)
        assert contents(grown) == contents(scratch)

    def test_seeds_that_are_not_those_of_its_fingerprint(self, old, tiny, scratch, tmp_path, monkeypatch):
        with monkeypatch.context() as patch:
            patch.setattr("tosca_cache.datasets.transforms.view_seed", lambda *args, numbers=count(1): next(numbers))
            make(old, tiny, tmp_path / "cache", FEW)
        with pytest.warns(ToscaWarning, match="other seeds than its fingerprint says"):
            grown = extract(old, tiny, tmp_path / "cache", OPTIONS, show_progress=False)
        assert_same(grown, scratch)
