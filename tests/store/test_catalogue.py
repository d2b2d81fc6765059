"""Finding the store that is meant, or saying why there is none; and `tosca cache`."""

import json

import pytest
from commands import tosca
from toy_store import ARRAYS, build, open_writer, publish, toy_spec

from tosca_cache.errors import FingerprintMismatch, StoreError
from tosca_cache.store import check_store, find_store, list_stores, open_store, store_path

WANTED = {"backbone.name": "nano", "views.count": 2}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """One finished store, one unfinished one of another dataset, one damaged, and things that are no stores."""
    folder = tmp_path_factory.mktemp("root")
    build(store_path(folder, toy_spec()))
    other = toy_spec(dataset=toy_spec().dataset | {"name": "other"})
    with open_writer(store_path(folder, other), other) as writer:
        publish(writer, writer.pending()[0], ARRAYS)
    (folder / "wrecked--nano").mkdir()
    (folder / "wrecked--nano" / "manifest.json").write_text("{}")
    (folder / "README.md").write_text("not a store")
    (folder / "empty").mkdir()
    return folder


def run(*arguments):
    return tosca("cache", *arguments, columns=200, code=0).stdout


def test_names_say_what_is_in_them(tmp_path):
    spec = toy_spec(backbone=toy_spec().backbone | {"name": "hf_hub:timm/vit ä"})
    path = store_path(tmp_path, spec)
    assert path.parent == tmp_path
    assert path.name == f"toy--hf_hub_timm_vit_--v2--{spec.digest()[:10]}"


def test_lists_finished_unfinished_and_damaged_stores(root, monkeypatch):
    states = {(store.state, store.spec and store.spec.dataset["name"]): store for store in list_stores(root)}
    assert set(states) == {("finished", "toy"), ("unfinished", "other"), ("damaged", None)}
    assert states["finished", "toy"].done_rows == 103
    assert states["unfinished", "other"].done_rows == 14
    assert "cannot be trusted" in states["damaged", None].problem
    assert list_stores(root / "nowhere") == []
    monkeypatch.setenv("TOSCA_CACHE", str(root))
    listed = {store["state"]: store for store in json.loads(run("ls", "--json"))}
    assert listed["finished"]["fingerprint"] == toy_spec().to_dict()
    assert listed["finished"]["rows"] == {"train": 70, "test": 33}
    assert listed["unfinished"]["done_rows"] == 14
    assert listed["damaged"]["problem"]
    table = run("ls", "--root", root)
    for said in (store_path(root, toy_spec()).name, "unfinished: 14 of 103 rows", "free on this disk"):
        assert said in table
    assert "cannot be trusted" in table
    assert run("ls", "--root", root / "nowhere", "--json") == "[]\n"
    assert "tosca extract" in run("ls", "--root", root / "nowhere")


def test_finds_the_one_store_that_fits(root, toy):
    for wanted in (None, WANTED, {"transform.mean": (0.5, 0.5, 0.5)}):
        assert find_store(root, "toy", wanted).path == store_path(root, toy_spec())
    check_store(toy, WANTED)
    with pytest.raises(FingerprintMismatch, match=r'dataset\.name: asked for "cub", it has "toy"'):
        check_store(toy, WANTED | {"dataset.name": "cub"})


def test_a_store_that_differs_is_named_with_every_field_and_both_values(root):
    with pytest.raises(FingerprintMismatch) as caught:
        find_store(root, "toy", WANTED | {"views.count": 8, "precision": "bf16", "transform.flip": 0.5})
    message = str(caught.value)
    assert store_path(root, toy_spec()).name in message
    assert "views.count: asked for 8, it has 2" in message
    assert 'precision: asked for "bf16", it has "fp32"' in message
    assert 'transform.flip: asked for 0.5, it has "(absent)"' in message
    assert "backbone.name: " not in message
    assert f"tosca extract --dataset toy --backbone nano --views 8 --precision bf16 --root {root}" in message


def test_why_there_is_none_or_more_than_one(root, tmp_path):
    for dataset, said in {
        "cub": r"no store of cub yet(.|\n)*tosca extract --dataset cub --backbone nano --views 2",
        "other": "unfinished",
        "wrecked": r"is damaged(.|\n)*wrecked--nano --repair",
    }.items():
        with pytest.raises(StoreError, match=said):
            find_store(root, dataset, WANTED)
    specs = [toy_spec(precision=precision) for precision in ("fp32", "bf16")]
    paths = [build(store_path(tmp_path, spec), spec).path for spec in specs]
    with pytest.raises(StoreError, match=r"2 stores of toy fit(.|\n)*--store") as caught:
        find_store(tmp_path, "toy")
    assert all(path.name in str(caught.value) for path in paths)
    assert find_store(tmp_path, "toy", {"precision": "bf16"}).path == paths[1]


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
