"""What cells are trained and scored on, row by row, where tasks bring classes and where they bring domains."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sweep_help import QUICK, make_data, make_runner

from tosca_cache.config import TrainConfig
from tosca_cache.errors import UsageError
from tosca_cache.sweep.scenario import Scenario, make_scenario
from tosca_cache.sweep.search import Search, SweepRequest
from tosca_cache.sweep.space import parse_set
from tosca_cache.tasks import class_order
from tosca_cache.train.engines import Engine

CLASSES = TrainConfig(increment=2)
DOMAINS = TrainConfig(incremental="domains")
# Rows of each class; of each class in each domain: none, or enough to hold one out.
COUNTS = st.lists(st.integers(2, 12), min_size=4, max_size=8)
ROW = st.lists(st.just(0) | st.integers(2, 9), min_size=5, max_size=5).filter(lambda row: sum(map(bool, row)) > 1)
STREAMS = st.tuples(COUNTS, st.builds(TrainConfig, increment=st.integers(1, 4), shuffle=st.booleans())) | st.tuples(
    st.lists(ROW, min_size=3, max_size=3), st.builds(TrainConfig, incremental=st.just("domains"), shuffle=st.booleans())
)
FRACTIONS = st.sampled_from([0.01, 0.2, 0.25, 0.5, 0.9, 0.99])
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(stream, split, arrays):
    """{store row: (domain's name, class's name)} of one split of all tasks, whose features are those of the store."""
    found = {}
    for t in range(len(stream)):
        rows = stream.task(t).train if split == "train" else stream.test(t)
        np.testing.assert_array_equal(rows.features, arrays.features[rows.index])
        domain = stream.domain_names[t] if stream.domain_names else ""
        names = [stream.class_names[c] for c in stream.class_of[rows.labels]]
        found |= {int(row): (domain, name) for row, name in zip(rows.index, names, strict=True)}
    return found


def truth(data, split, classes=None):
    """The same of all rows of a split, or of those of some classes."""
    arrays = getattr(data, split)
    domains = np.zeros_like(arrays.labels) if arrays.domains is None else arrays.domains
    pairs, names = zip(domains.tolist(), arrays.labels.tolist(), strict=True), data.domain_names or ("",)
    kept = range(len(data.class_names)) if classes is None else classes
    return {row: (names[d], data.class_names[c]) for row, (d, c) in enumerate(pairs) if c in kept}


@given(asked=STREAMS, fraction=FRACTIONS, seed=SEEDS)
def test_val_cuts_the_train_rows_of_every_class_in_two(asked, fraction, seed):
    counts, config = asked
    data = make_data(counts)
    data.test.features[:] = np.nan
    stream = make_scenario(Scenario("val", fraction), config, data, seed)
    kept, held = (rows_of(stream, split, data.train) for split in ("train", "test"))
    assert not set(kept) & set(held) and kept | held == truth(data, "train")
    for d, row in enumerate(np.atleast_2d(counts)):
        for c, n in enumerate(row):
            out = list(held.values()).count(((data.domain_names or ("",))[d], data.class_names[c]))
            assert (not n and not out) or (1 <= out <= n - 1 and (abs(out - fraction * n) <= 0.5 or out in (1, n - 1)))
    assert len(stream) == (len(counts) if data.domain_names else -(-len(counts) // config.increment))


@given(asked=STREAMS, seed=SEEDS)
def test_first_task_is_val_on_the_first_task(asked, seed):
    data, config = make_data(asked[0]), asked[1]
    config = config if data.domain_names else replace(config, init_cls=3)
    whole, first = (make_scenario(Scenario(rows, 0.25), config, data, seed) for rows in ("val", "first-task"))
    assert len(first) == 1
    for ours, theirs in ((first.task(0).train, whole.task(0).train), (first.test(0), whole.test(0))):
        for name in ("labels", "index", "features"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    if not data.domain_names:
        order = class_order(len(asked[0]), seed, shuffle=config.shuffle)
        assert whole.class_names == tuple(data.class_names[c] for c in order)


@given(counts=COUNTS, shuffle=st.booleans(), seed=SEEDS)
def test_halves_are_disjoint_and_whole_and_test_is_all(counts, shuffle, seed):
    data, half = make_data(counts, test=[1 + n % 3 for n in counts]), len(counts) // 2
    for rows, classes in (("half-1", range(half)), ("half-2", range(half, 2 * half)), ("test", None)):
        stream = make_scenario(Scenario(rows), replace(CLASSES, shuffle=shuffle), data, seed)
        for split in ("train", "test"):
            assert rows_of(stream, split, getattr(data, split)) == truth(data, split, classes)


@pytest.mark.parametrize("config", [CLASSES, DOMAINS], ids=["classes", "domains"])
def test_held_out_rows_follow_from_the_seed_and_from_nothing_else(config):
    data = make_data((20,) * 6 if config is CLASSES else [[9] * 4] * 3)

    def held(seed, rows=data, **setting):
        found = rows_of(make_scenario(Scenario("val", 0.2), replace(config, **setting), rows, seed), "test", rows.train)
        return {row for row, (domain, _) in found.items() if domain in ("", "y")}

    expected = held(1)
    for setting in ({"lr": 0.1, "l1": 0.0}, {"epochs": 7}, {"shuffle": False}, {"optimizer": "adam"}):
        assert held(1, **setting) == expected
    assert len({tuple(sorted(held(seed))) for seed in range(5)}) == 5
    if config is CLASSES:
        assert held(1, increment=4) == expected
    else:
        fewer = data.train.part(np.flatnonzero(data.train.domains > 0))
        assert held(1, replace(data, train=fewer)) == expected, "whatever other domains there are"


@pytest.mark.parametrize(
    ("counts", "config", "rows", "words", "remedy"),
    [
        ((4, 1, 4, 4), CLASSES, "val", "'class 1' has one train row", "two-phase"),
        ([[4] * 3, [4, 1, 4], [4] * 3], DOMAINS, "val", "'class 1' of domain 'y' has one train row", "two-phase"),
        ([[4] * 3] * 3, DOMAINS, "half-1", "incremental domains says what the tasks", "--select val"),
        ((4,) * 5, replace(CLASSES, init_cls=3), "half-1", "are 2, fewer than the 3 of a task", "--select val"),
    ],
)
def test_what_cannot_be_held_out_or_halved_is_refused(counts, config, rows, words, remedy):
    with pytest.raises(UsageError, match=f"{words}(.|\n)*{remedy}"):
        make_scenario(Scenario(rows, 0.2), config, make_data(counts), 1)


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_fractions_that_are_none(fraction):
    with pytest.raises(UsageError, match="--val-fraction"):
        SweepRequest(CLASSES, parse_set([]), seeds=(1,), fraction=fraction)


@pytest.mark.parametrize("select", ["val", "first-task"])
def test_no_test_row_and_no_row_of_a_later_task_decides_an_honest_search(select):
    """Where such features are no numbers, whatever reads one cannot give the same choice as without."""
    seeds = (1, 2) if select == "val" else (3,)
    request = SweepRequest(QUICK, parse_set(["lr=0.001,0.05", "flow=tosca,adapter"]), seeds=seeds, select=select)
    tables = []
    for spoiled in (True, False):
        data = make_data(noise=2.0)
        if spoiled:
            data.test.features[:] = np.nan
        if spoiled and select == "first-task":
            data.train.features[np.isin(data.train.labels, class_order(6, 3)[2:])] = np.nan
        with make_runner(data, engine=Engine("native")) as runner:
            search = Search(request, runner)
            search.run()
            tables.append([(s.point, s.mean) for s in search.scored()])
    assert tables[0] == tables[1] and np.isfinite([mean for _, mean in tables[0]]).all() and len(tables[0]) == 4
