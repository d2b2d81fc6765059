"""Growing: interrupted, in parts, and without the source that it began with, the end is the same."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import count

import pytest
from growing_help import OPTIONS, TRIED, assert_same, contents, make

from tosca_cache.errors import StoreError, ToscaWarning
from tosca_cache.extract.parts import extract_part, join
from tosca_cache.extract.pipeline import Extraction, extract
from tosca_cache.store import Part, list_stores


def stopping(dataset, after):
    """The dataset, but Ctrl-C comes when its image number `after` is opened (those that are only tried are not counted)."""
    left = [after + 2 * TRIED]

    def opener(split, row):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return dataset.opener(split, row)

    return replace(dataset, opener=opener)


class TestResume:
    def interrupted(self, dataset, backbone, root, after=7):
        with pytest.raises(KeyboardInterrupt):
            make(stopping(dataset, after), backbone, root)
        (state,) = [store for store in list_stores(root) if store.state == "unfinished"]
        assert 0 < state.done_rows < 24
        return state

    def test_the_end_is_the_same(self, old, tiny, cache, tmp_path):
        shutil.copytree(cache, tmp_path / "again")
        whole = make(old, tiny, cache)
        for after in (5, 9):
            self.interrupted(old, tiny, tmp_path / "again", after)
        broken = make(old, tiny, tmp_path / "again")
        assert contents(broken) == contents(whole)
        assert broken.provenance["reused"] == whole.provenance["reused"]

    def test_the_donor_is_gone(self, old, tiny, cache, scratch, capsys):
        (source_store,) = list_stores(cache)
        state = self.interrupted(old, tiny, cache)
        shutil.rmtree(source_store.path)
        grown = extract(old, tiny, cache, OPTIONS)
        assert f"the store {source_store.spec.digest()[:10]}, from which some were taken" in capsys.readouterr().err
        assert_same(grown, scratch)
        assert grown.provenance["reused"] == [
            {"store": source_store.spec.digest(), "rows": state.done_rows, "views": state.done_rows * 3}
        ]

    def test_the_donor_goes_while_it_is_taken_from(self, old, tiny, cache, scratch):
        (source_store,) = list_stores(cache)
        opened = count()

        def opener(split, row):
            if next(opened) == 2 * TRIED + 5:
                shutil.rmtree(source_store.path)
            return old.opener(split, row)

        with pytest.warns(ToscaWarning, match=r"shapes--.* is gone; what it would have given is computed") as said:
            grown = extract(replace(old, opener=opener), tiny, cache, OPTIONS, show_progress=False)
        assert len(said) == 1
        assert_same(grown, scratch)

    def test_a_store_that_appears_later_is_not_asked(self, old, tiny, cache, tmp_path):
        shutil.copytree(cache, tmp_path / "again")
        self.interrupted(old, tiny, cache)
        make(old, tiny, cache, replace(OPTIONS, views=4))
        assert contents(make(old, tiny, cache)) == contents(make(old, tiny, tmp_path / "again"))

    def test_restart_asks_again_and_no_reuse_is_refused(self, old, tiny, cache):
        self.interrupted(old, tiny, cache)
        later = make(old, tiny, cache, replace(OPTIONS, views=4))
        with pytest.raises(StoreError, match=r"numerics.reused: begun with .*, now"):
            make(old, tiny, cache, replace(OPTIONS, reuse=False))
        grown = make(old, tiny, cache, replace(OPTIONS, restart=True))
        assert grown.manifest.plan.numerics["reused"] == [later.spec.digest()]

    @pytest.mark.long
    def test_kill_9(self, old, tiny, tiny_weights, cache, tmp_path):
        """A real process that is killed between two shards."""
        shutil.copytree(cache, tmp_path / "again")
        script = tmp_path / "killed.py"
        script.write_text(KILLED)
        command = [str(word) for word in (sys.executable, script, old.root, tiny_weights, tmp_path / "again", 2)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert [store.done_rows for store in list_stores(tmp_path / "again") if store.state == "unfinished"] == [10]
        broken, whole = make(old, tiny, tmp_path / "again"), make(old, tiny, cache)
        assert contents(broken) == contents(whole)
        assert broken.provenance["reused"] == whole.provenance["reused"]


KILLED = """
import os, signal, sys
from pathlib import Path
from tosca_cache.datasets import load_dataset
from tosca_cache.extract import probe
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.options import ExtractOptions
from tosca_cache.extract.pipeline import extract
from tosca_cache.store import StoreWriter, layout

layout.SHARD_ROWS = 5
data, weights, root, left = *sys.argv[1:4], int(sys.argv[4])
publish = StoreWriter.publish

def killing(self, *args, **named):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    publish(self, *args, **named)

StoreWriter.publish = killing
backbone = load_backbone("test_vit", weights=Path(weights), img_size=32, precision="fp32")
options = ExtractOptions(views=5, test_views=1, store_dtype="float32", batch_size=8, workers=1)
extract(load_dataset(data), backbone, Path(root), options, show_progress=False)
"""


class TestParts:
    def test_parts_take_the_same(self, old, tiny, cache, tmp_path):
        shutil.copytree(cache, tmp_path / "parts")
        alone = make(old, tiny, cache)
        parts = Extraction(old, tiny, tmp_path / "parts", OPTIONS)
        for part in ("2/3", "1/3"):
            assert extract_part(parts, Part.parse(part), show_progress=False).complete
        extract_part(
            replace(parts), Part.parse("3/3"), show_progress=False
        )  # a process of its own, as far as sources go
        joined = join(replace(parts))
        assert contents(joined) == contents(alone)
        assert joined.provenance["reused"] == alone.provenance["reused"]

    def test_a_part_says_what_is_left_of_its_own(self, old, tiny, cache, capsys):
        extract_part(Extraction(old, tiny, cache, OPTIONS), Part.parse("1/5"))
        said = capsys.readouterr().err
        assert ": 15 views of 5 images" in said and "left to compute: 15 views of 5 images" in said
