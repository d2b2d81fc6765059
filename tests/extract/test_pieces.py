"""What is kept of a forward pass: [CLS] of several blocks, and poolings of the last one, against plain code."""

import json

import numpy as np
import pytest
import torch
from commands import tosca
from photos import pixels
from reference import official_newer as plain
from safetensors.torch import save_file

from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept
from tosca_cache.learners import LEARNERS
from tosca_cache.learners.protocol import run_protocol
from tosca_cache.store import open_store
from tosca_cache.tasks import TaskStream
from tosca_cache.torchvision_compat import ensure_torchvision

NANO = ("--backbone", "vit_nano", "--store-dtype", "float32")


def features(backbone, rows):
    return backbone.forward(backbone.transform())(rows)


def block_outputs(backbone, rows):
    """Of every block, by hooks."""
    forward, found = backbone.forward(backbone.transform()), []
    hooks = [b.register_forward_hook(lambda *a: found.append(a[2].float())) for b in forward.model.blocks]
    forward(rows)
    for hook in hooks:
        hook.remove()
    return found


def convolutional(folder, name="test_efficientnet"):
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors")
    return {"weights": folder / f"{name}.safetensors", "img_size": 64, "precision": "fp32"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_are_class_tokens_of_block_outputs_and_the_last_is_the_backbones_own(tiny_weights, precision):
    how = {"weights": tiny_weights, "img_size": 32, "precision": precision}
    own, kept = (load_backbone("test_vit", **how, kept=kept) for kept in (Kept(), Kept(4)))
    rows = pixels(3, 32)
    found = features(kept, rows)
    assert (kept.widths, kept.kept.names) == ((64,) * 4, ("cls@-4", "cls@-3", "cls@-2", "cls"))
    torch.testing.assert_close(found[:, -64:], features(own, rows), rtol=0, atol=0)
    for place, tokens in enumerate(block_outputs(own, rows)[2:5]):
        torch.testing.assert_close(found[:, 64 * place : 64 * (place + 1)], tokens[:, 0], rtol=0, atol=0)
    assert kept.weights_digest == own.weights_digest and own.widths == ()


def test_pools_of_tokens(tiny, tiny_weights):
    rows = pixels(3, 32)
    with torch.inference_mode():
        forward = tiny.forward(tiny.transform())
        tokens = tiny.model.forward_features(forward.prepare(rows))
    patches = tokens[:, 1:].double()
    expected = {
        "mean": patches.mean(1),
        "cls+mean": torch.cat((tokens[:, 0].double(), patches.mean(1)), 1),
        "gem": (patches.clamp(min=1e-6) ** 3).mean(1) ** (1 / 3),
    }
    for pool, wanted in expected.items():
        found = load_backbone("test_vit", weights=tiny_weights, img_size=32, precision="fp32", kept=Kept(2, pool))
        given = features(found, rows)
        assert given.shape[1] == sum(found.widths) == found.dim
        torch.testing.assert_close(given[:, 64:].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["test_efficientnet", "test_mambaout"])  # maps of channels first, and last
def test_pools_of_maps(tmp_path, name):
    how, rows = convolutional(tmp_path, name), pixels(2, 64)
    backbone = load_backbone(name, **how)
    with torch.inference_mode():
        maps = backbone.model.forward_features(backbone.forward(backbone.transform()).prepare(rows)).double()
    over = (1, 2) if name == "test_mambaout" else (2, 3)
    mean, gem = maps.mean(over), (maps.clamp(min=1e-6) ** 3).mean(over) ** (1 / 3)
    if name == "test_efficientnet":  # whose own pooling is the mean
        torch.testing.assert_close(features(backbone, rows).double(), mean, rtol=1e-5, atol=1e-6)
    for pool, wanted in (("mean", mean), ("gem", gem)):
        given = features(load_backbone(name, **how, kept=Kept(1, pool)), rows)
        torch.testing.assert_close(given.double(), wanted, rtol=1e-5, atol=1e-6)


def test_what_a_backbone_has_not_is_refused(tmp_path, shapes_folder):
    how = convolutional(tmp_path)
    for kept in (Kept(2), Kept(1, "cls+mean")):
        with pytest.raises(UsageError, match=rf"without a \[CLS\] token.*--layers {kept.layers} --pool"):
            load_backbone("test_efficientnet", **how, kept=kept)
    asked = ("extract", "--dataset", shapes_folder, "--root", tmp_path / "cache", *NANO)
    assert "6 blocks, with a [CLS] token" in tosca(*asked, "--layers", 7, code=2).output
    assert "greater than or equal to 1" in tosca(*asked, "--layers", 0, code=2).output
    assert "--pool cannot be 'max'" in tosca(*asked, "--pool", "max", code=2).output
    assert not list((tmp_path / "cache").glob("*"))


@pytest.fixture(scope="module")
def root(tmp_path_factory, shapes_folder):
    """Stores of the pictures: plain, of three layers, and of patch means."""
    root = tmp_path_factory.mktemp("cache")
    asked = ("extract", "--dataset", shapes_folder, "--root", root, "--views", 1, *NANO)
    for words in ((), ("--layers", 3), ("--pool", "mean")):
        tosca(*asked, *words, code=0)
    return root


def stores(root):
    return [open_store(next(root.glob(f"shapes--vit_nano{which}--v1--*"))) for which in ("", "_3layers", "_mean")]


def test_a_store_says_what_its_pieces_are_and_grows_from_one_of_the_same_only(root, shapes_folder, tmp_path):
    own, layers, mean = stores(root)
    assert layers.spec.pieces == (("cls@-3", 192), ("cls@-2", 192), ("cls", 192)) and layers.dim == 576
    assert own.spec.pieces == () and mean.spec.pieces == (("mean", 192),)
    assert len({store.spec.digest() for store in (own, layers, mean)}) == 3
    assert "'cls@-3'" in tosca("cache", "info", layers.path, code=0).output
    np.testing.assert_array_equal(layers.features("train", pieces="last"), own.features("train"))
    tosca("cache", "verify", layers.path, "--recompute", 3, code=0)
    tosca("cache", "export", layers.path, tmp_path / "out.npz", code=0)
    with np.load(tmp_path / "out.npz") as file:
        assert json.loads(str(file["store"]))["backbone"]["pieces"] == ["cls@-3", "cls@-2", "cls"]
        assert file["train/features"].shape[2] == 576
    asked = ("extract", "--dataset", shapes_folder, "--root", root, *NANO)
    grown = tosca(*asked, "--views", 2, "--layers", 3, code=0).output
    assert "taken from shapes--vit_nano_3layers" in " ".join(grown.split())
    assert "taken from" not in tosca(*asked, "--views", 1, "--layers", 2, code=0).output


def test_learners_of_one_vector_get_what_a_store_without_layers_gives(root):
    streams = [TaskStream.from_store(store, increment=1, seed=1) for store in stores(root)[:2]]
    assert streams[0].dim == streams[1].dim == 192 and streams[1].seen_by("all").dim == 576
    for number in range(3):
        np.testing.assert_array_equal(*(s.task(number).train.features for s in streams))
        np.testing.assert_array_equal(*(s.test(number).features for s in streams))
    for name in ("tosca", "ranpac", "joint-logistic"):
        learners = [LEARNERS[name](seed=3) for _ in streams]
        outcomes = [run_protocol(one, stream) for one, stream in zip(learners, streams, strict=True)]
        states = [one.state() for one in learners]
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        np.testing.assert_array_equal(outcomes[0].R, outcomes[1].R)


def test_layup_learns_from_all_layers(root, tmp_path):
    _, layers, _ = stores(root)
    stream = TaskStream.from_store(layers, increment=1, init_cls=2, seed=1)
    learner = LEARNERS["layup"](seed=3)
    outcome = run_protocol(learner, stream)
    everything = stream.seen_by("all")
    parts = [(task.train.features[:, 0].astype(np.float64), task.train.labels) for task in everything]
    weights, lam = plain.layup_weights(parts)
    test = np.concatenate([everything.test(number).features[:, 0] for number in range(2)])
    assert test.shape[1] == 576 and learner.classifier.lam == lam
    scores = test.astype(np.float64) @ weights
    np.testing.assert_allclose(learner.scores(test), scores, rtol=1e-5, atol=1e-6 * np.abs(scores).max())
    np.testing.assert_array_equal(outcome.predictions[-1].labels, stream.class_of[scores.argmax(1)])
    words = ("--methods", "layup,lda", "--seeds", 1, "--increment", 1, "--ledger", tmp_path / "l.sqlite", "--json")
    table = tosca("compare", "--store", layers.path, *words, code=0).stdout
    assert {row["method"] for row in json.loads(table)["rows"]} == {"layup", "lda"}
    run = ("train", "--store", layers.path, "--method", "layup", "--increment", 1, "--runs", tmp_path / "runs")
    assert "accuracy" in tosca(*run, code=0).output


@pytest.mark.parametrize(("method", "dim"), [("nmc", 192), ("layup", 576)])
def test_a_model_of_a_store_with_layers_sees_photos_as_it_has_learned_them(root, shapes_folder, tmp_path, method, dim):
    _, layers, mean = stores(root)
    tosca("learn", tmp_path / "model", "--store", layers.path, "--method", method, code=0)
    card = json.loads(next((tmp_path / "model").rglob("model.json")).read_text())
    assert (card["dim"], card["backbone"]["layers"]) == (dim, dim // 192)
    photos = sorted((shapes_folder / "test").rglob("*.png"))
    asked = tosca("predict", tmp_path / "model", *photos, "--json", code=0).stdout.splitlines()
    stored = tosca("predict", tmp_path / "model", "--features", layers.path, "--json", code=0).stdout.splitlines()
    by_name = {one["path"]: one for one in map(json.loads, stored)}
    for photo, one in zip(photos, map(json.loads, asked), strict=True):
        other = by_name[f"test/{photo.relative_to(shapes_folder)}"]
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)
    refused = tosca("learn", tmp_path / "model", "--store", mean.path, code=1)
    assert "pool" in refused.output and "not of the kind" in refused.output
    tosca("learn", tmp_path / "pooled", "--store", mean.path, "--method", "nmc", code=0)
    words = ("--pt2", tmp_path / "model.pt2", "--photos", shapes_folder / "test")  # compared with the model's answers
    assert "model.pt2" in tosca("export", tmp_path / "pooled", *words, code=0).output
