"""What a store says it is, finding the one that is meant or saying why there is none, and `tosca cache`."""

import json

import pytest
from campaign import times
from commands import tosca
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_store import build, open_writer, publish, toy_spec

from tosca_cache.errors import FingerprintMismatch, StoreError
from tosca_cache.store import StoreSpec, check_store, find_store, open_store, store_path
from tosca_cache.store.spec import ABSENT

WANTED = {"backbone.name": "nano", "views.count": 2}
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
    spec = toy_spec(source={"kind": "imported", "files": [{"name": "a.npz"}]}, precision="unknown")
    assert StoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert ("source.kind", "imported", ABSENT) in spec.differences(toy_spec())


def named(dataset, **changes):
    return toy_spec(dataset=toy_spec().dataset | {"name": dataset}, **changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One finished store, one unfinished one of another dataset, one damaged, and things that are no stores."""
    folder = tmp_path_factory.mktemp("root")
    build(store_path(folder, toy_spec()))
    other = named("other")
    with open_writer(store_path(folder, other), other) as writer:
        publish(writer, writer.pending()[0])
    (folder / "wrecked--nano").mkdir()
    (folder / "wrecked--nano" / "manifest.json").write_text("{}")
    (folder / "README.md").write_text("not a store")
    (folder / "empty").mkdir()
    return folder


def run(*arguments):
    return tosca("cache", *arguments, columns=200, code=0).stdout


def test_names_say_what_is_in_them(tmp_path):
    spec = toy_spec(backbone=toy_spec().backbone | {"name": "hf_hub:timm/vit ä"})
    assert store_path(tmp_path, spec) == tmp_path / f"toy--hf_hub_timm_vit_--v2--{spec.digest()[:10]}"


def test_lists_finished_unfinished_and_damaged_stores(root, monkeypatch):
    monkeypatch.setenv("TOSCA_CACHE", str(root))
    listed = {store["state"]: store for store in json.loads(run("ls", "--json"))}
    assert listed.keys() == {"finished", "unfinished", "damaged"}
    assert listed["finished"]["fingerprint"] == toy_spec().to_dict()
    assert listed["finished"]["rows"] == {"train": 70, "test": 33} and listed["finished"]["done_rows"] == 103
    assert listed["unfinished"]["done_rows"] == 14
    assert "cannot be trusted" in listed["damaged"]["problem"]
    table = run("ls", "--root", root)
    for said in (store_path(root, toy_spec()).name, "unfinished: 14 of 103 rows", "free on this disk", "be trusted"):
        assert said in table
    assert run("ls", "--root", root / "nowhere", "--json") == "[]\n"
    assert "tosca extract" in run("ls", "--root", root / "nowhere")


def test_finds_the_one_store_that_fits(root, toy):
    for wanted in (None, WANTED, {"transform.mean": (0.5, 0.5, 0.5)}):
        assert find_store(root, "toy", wanted).path == store_path(root, toy_spec())
    check_store(toy, WANTED)
    with pytest.raises(FingerprintMismatch, match=r'dataset\.name: asked for "cub", it has "toy"'):
        check_store(toy, WANTED | {"dataset.name": "cub"})


@pytest.mark.parametrize(
    ("dataset", "more", "said"),
    [
        ("cub", {}, ["no store of cub yet", "tosca extract --dataset cub --backbone nano --views 2"]),
        ("other", {}, ["unfinished"]),
        ("wrecked", {}, ["is damaged", "wrecked--nano --repair"]),
        ("twice", {}, ["2 stores of twice fit", named("twice").digest()[:10], "--store"]),
        (
            "toy",
            {"views.count": 8, "precision": "bf16", "transform.flip": 0.5},
            [
                *("views.count: asked for 8, it has 2", 'precision: asked for "bf16", it has "fp32"'),
                'transform.flip: asked for 0.5, it has "(absent)"',
                "tosca extract --dataset toy --backbone nano --views 8 --precision bf16 --root ",
                store_path("cache", toy_spec()).name,
            ],
        ),
    ],
)
def test_why_there_is_none_or_more_than_one(root, tmp_path, dataset, more, said):
    for spec in (named("twice"), named("twice", precision="bf16")) if dataset == "twice" else ():
        root = build(store_path(tmp_path, spec), spec).path.parent
    with pytest.raises(StoreError) as caught:
        find_store(root, dataset, WANTED | more)
    assert all(words in str(caught.value) for words in said) and "backbone.name: " not in str(caught.value)


def test_info_of_a_store_by_path_name_or_beginning(root):
    path = store_path(root, toy_spec())
    for named in (path, path.name, "toy--"):
        facts = json.loads(run("info", named, "--root", root, "--json"))
        assert facts["fingerprint_digest"] == toy_spec().digest()
        assert facts["views"] == {"train": 3, "test": 1}
        assert facts["numerics"] == {"batch_size": 4, "device": "cpu"}
        assert facts["bytes"] > 70 * 3 * 24 * 2
    shown = run("info", path, "--root", root)
    assert all(f"'{name}'" in shown for field in open_store(path).spec.flat() for name in field.split("."))
    facts = json.loads(run("info", "other", "--root", root, "--json"))
    assert (facts["state"], facts["done_rows"]) == ("unfinished", 14)
    assert "does not exist" in tosca("cache", "info", "nothing", "--root", root, code=1).stderr
