"""Modules inside a frozen ViT: trained on the first task alone, saved and loaded; and from them to stores and tables."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import tosca
from photos import COLOURS, paint, pixels
from safetensors.torch import load_file, save_file

from tosca_cache import api
from tosca_cache.errors import BackboneError, FingerprintMismatch
from tosca_cache.extract import tuning
from tosca_cache.extract.adapted import CARD, PARTS
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept
from tosca_cache.store import list_stores, open_store

KIND = "adapted backbone (adapter)"
# Two classes first, of seed 1; a few steps that change something.
STREAM = ("--increment", 2, "--seed", 1)
QUICK = ("--epochs", 3, "--batch-size", 4, "--lr", 0.05, "--scale", 10, "--workers", 1)


@pytest.fixture(scope="module")
def patterns(tmp_path_factory):
    """A folder of six classes of 8 train and 3 test photos."""
    root = tmp_path_factory.mktemp("pictures") / "patterns"
    for split, count in (("train", 8), ("test", 3)):
        paint(root / split, COLOURS, count, seed=count, size=32)
    return root


@pytest.fixture(scope="module")
def adapt(patterns):
    """Adapts vit_nano on the first task of the patterns: (out, further words) -> the new folder, or what was said."""

    def run(out, *words, dataset=patterns, fails=False):
        asked = ("adapt", "--dataset", dataset, "--backbone", "vit_nano", "--out", out, *STREAM, *QUICK, *words)
        result = tosca(*asked)
        assert bool(result.exit_code) == fails, result.output
        return result if fails else out / result.stdout.strip().rpartition("/")[2]

    return run


@pytest.fixture(scope="module")
def adapted(adapt, tmp_path_factory):
    """A backbone with adapters."""
    return adapt(tmp_path_factory.mktemp("adapted"))


def features(name, **how):
    backbone = load_backbone(str(name), **how)
    return backbone.forward(backbone.transform())(pixels(3, 32))


def card_of(folder):
    return json.loads((folder / CARD).read_text())


@pytest.mark.parametrize("kind", sorted(tuning.KINDS))
def test_every_kind_is_trained_saved_and_loaded(kind, adapt, tmp_path):
    folder = adapt(tmp_path, "--kind", kind)
    card, frozen = card_of(folder), load_backbone("vit_nano")
    losses = [epoch["loss"] for epoch in card["training"]["history"]]
    assert min(losses[1:]) < losses[0]
    assert card["base"]["weights_digest"] == frozen.weights_digest != load_backbone(str(folder)).weights_digest
    before, found = features("vit_nano"), features(folder)
    assert not torch.allclose(found, before)
    torch.testing.assert_close(features(folder, with_base=True), torch.cat((before, found), 1))
    pieces = [features(name, kept=Kept(2, "mean")).chunk(2, 1) for name in ("vit_nano", folder)]
    beside = features(folder, with_base=True, kept=Kept(2, "mean"))  # piece by piece, the frozen one's first
    torch.testing.assert_close(beside, torch.cat((pieces[0][0], pieces[1][0], pieces[0][1], pieces[1][1]), 1))
    # The same by hand: the frozen model, fresh modules, which leave features as they were, and the saved tensors.
    own, forward = {id(p) for p in frozen.model.parameters()}, frozen.forward(frozen.transform())
    trained = tuning.insert(frozen.model, kind, card["settings"])
    assert trained and not {id(p) for p in trained} & own and all(p.requires_grad for p in trained)
    # But prompt tokens take part in every attention from the start.
    assert torch.allclose(forward(pixels(3, 32)), before, rtol=1.3e-6, atol=1e-5) == (kind != "vpt")
    assert tuning.put_tensors(frozen.model, trained, load_file(folder / PARTS)) == []
    torch.testing.assert_close(forward(pixels(3, 32)), found)


def test_the_first_task_is_what_is_trained_on_and_test_images_play_no_part(adapt, adapted, patterns, tmp_path):
    first = card_of(adapted)["first_task"]
    names = np.array(sorted(path.name for path in (patterns / "train").iterdir()))
    order = names[np.random.RandomState(1).permutation(6)].tolist()
    assert (first["classes"], first["class_order"]) == (order[:2], order)
    assert first["train_rows"] + first["held_out"] == 16 and first["held_out"] == 2
    copy = shutil.copytree(patterns, tmp_path / patterns.name)
    for image in copy.rglob("*.png"):  # unreadable, but for the train images of the first task
        if "test" in image.parts or image.parent.name not in first["classes"]:
            image.write_bytes(b"")
    assert (adapt(tmp_path / "out", dataset=copy) / PARTS).read_bytes() == (adapted / PARTS).read_bytes()


def test_interrupted_it_goes_on_and_gives_the_same(adapt, adapted, tmp_path, monkeypatch):
    done = []

    def told(what, epoch, best):
        done.append(what.rpartition(" ")[2])
        if done == ["1/3", "2/3"]:
            raise KeyboardInterrupt
        return what

    with monkeypatch.context() as patch:
        patch.setattr("tosca_cache.adapt.request.epoch_line", told)
        assert adapt(tmp_path, fails=True).exit_code == 130
        assert not [path for path in tmp_path.iterdir() if path.suffix != ".partial"]
        again = adapt(tmp_path)
    assert done == ["1/3", "2/3", "3/3"] and {path.name for path in again.iterdir()} == {CARD, PARTS}
    assert (again / PARTS).read_bytes() == (adapted / PARTS).read_bytes()
    partial = tmp_path / "begun.partial"
    partial.mkdir()
    save_file({"x": torch.zeros(1)}, partial / "state.safetensors", {"record": "{}"})
    refused = adapt(tmp_path, "--name", "begun", fails=True)
    assert "cannot be gone on with" in refused.output and "remove its folder" in refused.output


def test_held_out_rows_choose_the_epoch_and_end_the_training(adapt, tmp_path):
    record = card_of(adapt(tmp_path, "--epochs", "12", "--patience", "1"))["training"]
    merits = [(e["held_out_accuracy"], -e["held_out_loss"]) for e in record["history"]]
    assert record["best"] == 1 + merits.index(max(merits))
    assert len(merits) == 12 or len(merits) == record["best"] + 1


def test_options_of_the_training(adapt, tmp_path):
    """Less time or memory gives nearly the same; without held-out rows the last epoch stands; another optimizer, size."""
    plain = adapt(tmp_path, "--held-out", "0")
    training, first = card_of(plain)["training"], card_of(plain)["first_task"]
    assert training["best"] == 3 and first["train_rows"] == 16 and training["history"][0]["held_out_loss"] is None
    for option, tolerance in (("--bf16", 0.05), ("--checkpointing", 1e-5)):
        found = load_file(adapt(tmp_path / option, "--held-out", "0", option) / PARTS)
        for name, tensor in load_file(plain / PARTS).items():
            torch.testing.assert_close(found[name], tensor, rtol=0.1, atol=tolerance)
    folder = adapt(tmp_path, "--optimizer", "adamw", "--lr", "0.003", "--size", "4", "--no-shuffle")
    assert card_of(folder)["first_task"]["classes"] == ["blue", "cyan"]
    downs = {tuple(t.shape) for n, t in load_file(folder / PARTS).items() if n.endswith("down.weight")}
    assert downs == {(4, 192)}


def test_damage_and_other_base_weights_are_refused(adapted, tmp_path):
    copy = shutil.copytree(adapted, tmp_path / "copy")
    card, parts = (copy / CARD).read_bytes(), (copy / PARTS).read_bytes()
    for file, whole, data, said in (
        (CARD, card, card.replace(b'"scale": 0.1', b'"scale": 0.2'), "damaged"),
        (PARTS, parts, parts[:-1] + bytes([parts[-1] ^ 1]), "damaged"),
        (CARD, card, b"[]", "no adapted backbone"),
    ):
        assert data != whole
        (copy / file).write_bytes(data)
        with pytest.raises(BackboneError, match=said):
            load_backbone(str(copy))
        (copy / file).write_bytes(whole)
    state = {name: tensor + 1 for name, tensor in load_backbone("vit_nano").model.state_dict().items()}
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(BackboneError, match="not the weights that the backbone was adapted from"):
        load_backbone(str(copy), weights=tmp_path / "other.safetensors")


def test_wrong_requests(adapt, adapted, tmp_path):
    import timm

    net = tmp_path / "net.safetensors"
    save_file(timm.create_model("test_resnet", num_classes=0).state_dict(), net)
    for words, said in (
        (("--kind", "soup"), "--kind cannot be 'soup'"),
        (("--kind", "ssf", "--size", 3), "have no size"),
        (("--optimizer", "lion"), "--optimizer cannot be"),
        (("--held-out", 0.9), "less than or equal to 0.5"),
        (("--lr", -1), "--lr cannot be -1"),
        (("--epochs", 0), "--epochs cannot be 0"),
        (("--init-cls", 1), "one class"),
        (("--lr", 1e30), "not finite"),
        (("--name", "a/b"), "cannot be the name"),
        (("--backbone", adapted), "adapted already"),
        (("--backbone", "test_resnet", "--weights", net, "--img-size", 64), "only plain vision transformers"),
    ):
        refused = adapt(tmp_path / "out", *words, fails=True)
        assert said in refused.output and "error:" in refused.output


@pytest.fixture(scope="module")
def stores(patterns, adapted, tmp_path_factory):
    """The frozen store of the patterns, the adapted one, and the one of both side by side."""
    root = tmp_path_factory.mktemp("stores")
    asked = ("extract", "--dataset", patterns, "--root", root, "--views", 1, "--store-dtype", "float32")
    for words in (("vit_nano",), (adapted,), (adapted, "--with-base")):
        tosca(*asked, "--backbone", *words, code=0)
    found = {summary.spec.features: open_store(summary.path) for summary in list_stores(root)}
    return [found[name] for name in ("frozen", KIND, "adapted backbone (adapter, frozen features beside)")]


def test_the_fingerprint_says_what_was_adapted_and_side_by_side_are_the_features_of_both(stores, adapted):
    frozen, own, both = (store.spec.backbone for store in stores)
    card, said = json.loads((adapted / "card.json").read_text()), own["adapted"]
    assert said["base_digest"] == frozen["weights_digest"] and said["first_task"] == card["first_task"]["classes"]
    assert (said["digest"], said["parts_digest"]) == (card["digest"], card["parts_digest"])
    assert "adapted" not in frozen and len({spec["weights_digest"] for spec in (frozen, own, both)}) == 3
    frozen, own, both = (store.features("train") for store in stores)
    np.testing.assert_allclose(both, np.concatenate((frozen, own), -1), rtol=1e-4, atol=1e-4)
    assert np.abs(frozen - own).max() > 1e-3


def test_a_stream_has_the_first_task_that_was_adapted_on(stores):
    for store in stores[1:]:
        assert len(api.task_stream(store, increment=2, seed=1)) == 3
        first = list(store.spec.first_task)
        rest = [name for name in store.class_names if name not in first]
        api.task_stream(store, task_sizes=[2, 4], class_order=[*reversed(first), *rest])
        for other in ({"increment": 2, "seed": 2}, {"increment": 2, "init_cls": 3}, {"increment": 1}):
            with pytest.raises(FingerprintMismatch, match="adapted on a first task of 2 classes"):
                api.task_stream(store, **{"seed": 1} | other)
    api.task_stream(stores[0], increment=2, seed=2)


def test_tables_keep_frozen_and_adapted_apart(stores, tmp_path):
    frozen, own, _ = stores
    asked = ("--method", "nmc", "--runs", tmp_path / "runs", *STREAM)
    done = tosca("train", "--store", own.path, *asked, code=0)
    assert f"features: {KIND}, first task of 2 classes" in done.output
    assert re.search(rf"3 tasks, {re.escape(KIND)}", " ".join(done.output.split()))
    tosca("train", "--store", frozen.path, *asked, code=0)
    listed = json.loads(tosca("show", "--runs", tmp_path / "runs", "--json", code=0).stdout)
    assert sorted(run["features"] for run in listed) == [KIND, "frozen"]
    for store, marked in ((own, True), (frozen, False)):
        words = ("--methods", "nmc", "--seeds", "1,", "--increment", 2, "--ledger", tmp_path / f"{marked}.sqlite")
        assert (KIND in tosca("compare", "--store", store.path, *words, code=0).output) == marked
    assert any(KIND in path.read_text() for path in (tmp_path / "runs").rglob("report.html"))
    refused = tosca("train", "--store", own.path, *asked[:-1], 5, code=1)
    assert "the stream's first task is another one" in refused.output and "do:" in refused.output


def test_the_backbones_name_chooses_the_store(stores, adapted, tmp_path):
    frozen = stores[0].path
    asked = ("--dataset", "patterns", "--root", frozen.parent, "--method", "nmc", "--runs", tmp_path, *STREAM)
    assert str(frozen) in tosca("train", *asked, "--backbone", "vit_nano", code=0).output
    several = tosca("train", *asked, "--backbone", adapted, code=1)  # with and without the frozen features
    assert "2 stores" in several.output and str(frozen) not in several.output
    assert "stores of patterns fit" in tosca("train", *asked, code=1).output


def test_extracting_again_and_verifying(stores, adapted, patterns):
    asked = ("extract", "--root", stores[0].path.parent, "--views", 1, "--store-dtype", "float32", "--dataset")
    assert "finished already" in tosca(*asked, patterns, "--backbone", adapted, code=0).output
    tosca("cache", "verify", stores[1].path, "--recompute", 3, code=0)
    for dataset, backbone, words, said in (
        (patterns, "vit_nano", ("--with-base",), "no adapted backbone"),
        (patterns, adapted, ("--img-size", 64), "--img-size"),
        (patterns, adapted, ("--normalize", "none"), "--normalize"),
        ("digits", adapted, (), "which digits has not"),
    ):
        assert said in tosca(*asked, dataset, "--backbone", backbone, *words, code=2).output


def test_a_model_of_adapted_features_sees_photos(stores, patterns, tmp_path):
    tosca("learn", tmp_path / "model", "--store", stores[1].path, "--method", "nmc", code=0)
    photos, asked = sorted((patterns / "train").rglob("0.png")), ("predict", tmp_path / "model", "--json")
    seen = map(json.loads, tosca(*asked, *photos, code=0).stdout.splitlines())
    stored = map(json.loads, tosca(*asked, "--features", stores[1].path, code=0).stdout.splitlines())
    labels = {one["path"]: one["label"] for one in stored}
    found = {f"train/{Path(one['path']).relative_to(patterns)}": one["label"] for one in seen}
    assert len(found) == 6 and found.items() <= labels.items()


@pytest.mark.long
def test_the_gpu_script_runs_without_a_gpu(tmp_path):
    command = [
        Path(__file__).parents[2] / "benchmarks" / "gpu_adapt.sh",
        "--small",
        "--out",
        tmp_path / "out",
        "--work",
        tmp_path / "work",
    ]
    subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads((tmp_path / "out" / "digits.json").read_text())["seeds"]["1993"]["accuracy"]
    assert set(found) == {"frozen", "adapted", "frozen and adapted"}
    assert all(50 < found[kind]["ranpac"]["last_accuracy"] <= 100 for kind in found)
