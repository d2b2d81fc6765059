"""Several writers, a part each: what they make together is what one makes alone, and nobody writes another's shards."""

import random
import signal

import pytest
import scenes
from campaign import times
from commands import Fork
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_store import ARRAYS, BAD, ROWS, build, build_part, open_writer, publish
from trees import tree

from tosca_cache.errors import UsageError
from tosca_cache.store import Part, Shard, list_stores


@pytest.mark.campaign
@settings(max_examples=times(25, 200))
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 60))
def test_every_shard_belongs_to_one_part(count, train, test):
    shards = [Shard(split, k, k, k + 1) for split, n in (("train", train), ("test", test)) for k in range(n)]
    parts = [Part(count, index) for index in range(1, count + 1)]
    assert sorted(shard for part in parts for shard in part.of(shards)) == sorted(shards)
    sizes = [len(part.of(shards)) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert Part(count, 0).of(shards) == []


def test_what_is_no_part():
    for text in ("0/4", "5/4", "x", "", "1", "1/0", "-1/4", "1/4/2", "1/x", "1.0/4", "²/4"):
        with pytest.raises(UsageError, match=r"i from 1 to n") as raised:
            Part.parse(text)
        assert raised.value.where == "--part"


def test_parts_of_any_number_in_any_order_are_one_store(skipping, tmp_path):
    with open_writer(tmp_path / "s", part=Part(2, 1)) as writer:
        for shard in writer.pending()[:2]:
            publish(writer, shard, ARRAYS, BAD)
    with open_writer(tmp_path / "s", part=Part(3, 1)) as writer:
        assert [shard.index for shard in writer.pending()] == [3, 1]  # of its 0, 3, 6, the first is done by part 1/2
        publish(writer, writer.pending()[0], ARRAYS, BAD)
    with open_writer(tmp_path / "s") as writer:
        assert len(writer.pending()) == 8 - 3
    for index in random.Random(0).sample(range(1, 21), 20):  # more than shards
        build_part(tmp_path / "s", Part(20, index), bad=BAD)
    with open_writer(tmp_path / "s") as writer:
        assert writer.pending() == []
        assert tree(writer.finish({}).path) == tree(skipping.path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


@pytest.mark.campaign
def test_killed_processes_of_all_parts_lose_nothing(skipping, tmp_path):
    """Real writers of all parts, which begin the store at the same time, die at random steps; others go on with it."""
    generator, path, parts = random.Random(1), tmp_path / "s", ("1/3", "2/3", "3/3")

    ends = []
    for most in (20, *times([60], [60] * 20)):  # the first 20 steps finish no shard
        steps = [generator.randrange(most) for _ in parts]
        died = zip(steps, parts, strict=True)
        writers = [Fork(scenes.dying, tmp_path, step, scenes.write_part, path, part) for step, part in died]
        ends += [writer.wait() for writer in writers]
    assert ends[:3] == [-signal.SIGKILL] * 3 and set(ends) <= {0, -signal.SIGKILL}
    assert [Fork(scenes.write_part, path, part).wait() for part in parts] == [0, 0, 0]
    (summary,) = list_stores(tmp_path)
    assert summary.done_rows == sum(ROWS.values())
    assert tree(build(path).path) == tree(skipping.path)
    assert [file.name for file in tmp_path.iterdir()] == ["s"]


def test_a_part_keeps_to_its_shards_and_does_not_decide_over_all(tmp_path):
    with open_writer(tmp_path / "s", part=Part(2, 1)) as writer:
        with pytest.raises(ValueError, match="another part"):
            publish(writer, Shard("train", 1, 14, 28), ARRAYS)
        with pytest.raises(ValueError, match="cannot finish"):
            writer.finish({})
    with pytest.raises(ValueError, match="cannot restart"):
        open_writer(tmp_path / "s", part=Part(2, 2), restart=True)
