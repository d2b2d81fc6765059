"""The fingerprint: readable, order-independent, and able to say what differs."""

import json

import pytest
from campaign import times
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_store import toy_spec

from tosca_cache.store import StoreSpec
from tosca_cache.store.spec import ABSENT

KEYS = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=4)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)
GROUPS = st.dictionaries(KEYS, VALUES, max_size=4)


def reversed_keys(value):
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(list(value))}
    return value


@pytest.mark.campaign
@settings(max_examples=times(25, 200))
@given(GROUPS, GROUPS)
def test_differences_are_those_of_the_digests_whatever_the_order_of_keys(one, other):
    first, second = toy_spec(transform=one), toy_spec(transform=other)
    assert toy_spec(transform=reversed_keys(one)).digest() == first.digest()
    assert StoreSpec.from_dict(json.loads(json.dumps(reversed_keys(first.to_dict())))) == first
    differences = first.differences(second)
    assert (not differences) == (first.digest() == second.digest())
    assert [(field, b, a) for field, a, b in differences] == second.differences(first)


def test_what_is_no_specification_is_refused():
    for changes in (
        {"precision": "int8"},
        {"precision": "unknown"},
        {"dtype": "bfloat16"},
        {"backbone": {"name": "nano", "tag": "", "weights_digest": ""}},
        {"views": {"count": "8", "seed": 1, "test_count": 0}},
        *({"transform": value} for value in ({"mean": float("nan")}, {"mean": object()}, {"a.b": 1}, {1: 1})),
        {"format": 1.0},
        *({"source": value} for value in ({}, {"kind": 1}, "imported", {"kind": "imported", "x": float("nan")})),
    ):
        with pytest.raises(ValueError, match=r"must be|cannot be|precision"):
            StoreSpec(**(toy_spec().to_dict() | changes))
    for value in (None, [], {}, "x", 1.5, toy_spec().to_dict() | {"source": None}):
        with pytest.raises(ValueError, match="keys"):
            StoreSpec.from_dict(value)


def test_a_source_is_part_of_the_specification_and_does_not_count_where_there_is_none():
    """Stores that exist are found by their digest; `source` came later."""
    assert toy_spec().digest() == "3db184c1d4c5aa70ad8234d693610e04b9e5ca9584895be561f308325357db6a"
    assert "source" not in toy_spec().to_dict() and not toy_spec().imported
    spec = toy_spec(source={"kind": "imported", "files": [{"name": "a.npz"}]}, precision="unknown")
    assert spec.imported and StoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert ("source.kind", "imported", ABSENT) in spec.differences(toy_spec())
