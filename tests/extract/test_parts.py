"""Stage one in parts: what several processes make and one finishes is what one alone makes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from extract.conftest import breaking, quietly, shards_of
from trees import tree

from tosca_cache.datasets import load_dataset
from tosca_cache.errors import StoreError
from tosca_cache.extract.backbone import Forward
from tosca_cache.extract.fingerprint import ExtractOptions
from tosca_cache.extract.pipeline import Extraction
from tosca_cache.extract.request import extract_part
from tosca_cache.store import Part, list_stores

OPTIONS = ExtractOptions(views=2, store_dtype="float32", batch_size=6, workers=1)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """4 train shards of 4 rows, and 3 test shards."""
    monkeypatch.setattr("tosca_cache.store.layout.SHARD_ROWS", 4)


@pytest.fixture(scope="session")
def alone(shapes_folder, tiny, tmp_path_factory):
    """The files that one process makes."""
    with shards_of(4):
        dataset = load_dataset(str(shapes_folder))
        return tree(quietly(dataset, tiny, tmp_path_factory.mktemp("alone"), OPTIONS).path)


def make(extraction, *parts):
    return [extract_part(extraction, Part.parse(part), show_progress=False) for part in parts]


def test_in_any_order_or_at_the_same_time(alone, shapes, tiny, tmp_path):
    parts = Extraction(shapes, tiny, tmp_path / "parts", OPTIONS)
    outcomes = make(parts, "3/3", "1/3", "2/3")
    assert [len(found.shards) - len(found.done) for found in outcomes][1:] == [2, 0]
    assert tree(parts.run(show_progress=False).path) == alone
    assert [path.name for path in parts.root.iterdir()] == [parts.path.name]
    parts = Extraction(shapes, tiny, tmp_path / "threads", OPTIONS)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda part: make(parts, part), ["1/3", "2/3", "3/3"]))
    assert tree(parts.run(show_progress=False).path) == alone


def test_a_finished_shard_is_not_made_again_by_parts_or_by_one_process(alone, shapes, tiny, tmp_path, monkeypatch):
    parts = Extraction(shapes, tiny, tmp_path / "parts", OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        make(replace(parts, dataset=breaking(shapes, 9)), "1/2")
    (begun,) = list_stores(parts.root)
    assert begun.done_rows == 8
    other = Extraction(shapes, tiny, tmp_path / "other", OPTIONS)
    make(other, "2/3")  # a shard of 4 rows and one of 3: what is left can be made of 24 - 7 images
    assert tree(quietly(breaking(shapes, 24 - 7), tiny, other.root, OPTIONS).path) == alone
    make(parts, "1/2", "2/2")
    monkeypatch.setattr(Forward, "__call__", lambda *args: pytest.fail("the backbone was run again"))
    make(parts, "1/2", "3/5")
    assert parts.run().path == parts.run().path
    with pytest.raises(StoreError, match="finished"):
        make(parts, "1/2")


def test_parts_of_other_numerics_are_refused_by_field(alone, shapes, tiny, tmp_path, monkeypatch):
    make(Extraction(shapes, tiny, tmp_path, OPTIONS), "1/2")
    parts = Extraction(shapes, tiny, tmp_path, replace(OPTIONS, batch_size=None))  # keeps the recorded one
    with monkeypatch.context() as patch:
        patch.setattr("torch.__version__", "1.0")
        with pytest.raises(StoreError, match=r'numerics.torch: begun with ".*", now "1.0"') as raised:
            make(parts, "2/2")
    assert "batch_size" not in str(raised.value)
    make(parts, "2/2")
    monkeypatch.setattr("torch.__version__", "1.0")  # a login node may have another than the nodes that computed
    assert tree(parts.run(show_progress=False).path) == alone
