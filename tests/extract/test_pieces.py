"""What is kept of a forward pass: [CLS] of several blocks, and poolings of the last one, against plain code."""

import json

import numpy as np
import pytest
import torch
from commands import tosca
from photos import pixels
from safetensors.torch import save_file

from tosca_cache.errors import UsageError
from tosca_cache.extract.backbone import load_backbone
from tosca_cache.extract.pieces import Kept
from tosca_cache.store import open_store
from tosca_cache.tasks import TaskStream
from tosca_cache.torchvision_compat import ensure_torchvision

NANO = ("--backbone", "vit_nano", "--store-dtype", "float32")


def features(backbone, rows):
    return backbone.forward(backbone.transform())(rows)


def convolutional(folder, name="test_efficientnet"):
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    save_file(timm.create_model(name, num_classes=0).state_dict(), folder / f"{name}.safetensors")
    return {"weights": folder / f"{name}.safetensors", "img_size": 64, "precision": "fp32"}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_layers_are_class_tokens_of_block_outputs_and_the_last_is_the_backbones_own(tiny_weights, precision):
    how, rows, tokens = {"weights": tiny_weights, "img_size": 32, "precision": precision}, pixels(3, 32), []
    own, kept = (load_backbone("test_vit", **how, kept=kept) for kept in (Kept(), Kept(4)))
    assert (kept.widths, kept.kept.names) == ((64,) * 4, ("cls@-4", "cls@-3", "cls@-2", "cls"))
    assert kept.weights_digest == own.weights_digest and own.widths == ()
    forward = own.forward(own.transform())
    for block in forward.model.blocks[2:5]:
        block.register_forward_hook(lambda *given: tokens.append(given[2][:, 0].float()))
    expected = forward(rows)
    torch.testing.assert_close(features(kept, rows), torch.cat((*tokens, expected), 1), rtol=0, atol=0)


def test_pools_of_tokens(tiny, tiny_weights):
    rows, forward = pixels(3, 32), tiny.forward(tiny.transform())
    with torch.inference_mode():
        tokens = tiny.model.forward_features(forward.prepare(rows)).double()
    patches = tokens[:, 1:]
    expected = {
        "mean": patches.mean(1),
        "cls+mean": torch.cat((tokens[:, 0], patches.mean(1)), 1),
        "gem": (patches.clamp(min=1e-6) ** 3).mean(1) ** (1 / 3),
    }
    for pool, wanted in expected.items():
        found = load_backbone("test_vit", weights=tiny_weights, img_size=32, precision="fp32", kept=Kept(2, pool))
        given = features(found, rows)
        assert given.shape[1] == sum(found.widths) == found.dim
        torch.testing.assert_close(given[:, 64:].double(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "over"), [("test_efficientnet", (2, 3)), ("test_mambaout", (1, 2))])
def test_pools_of_maps_with_channels_first_or_last(tmp_path, name, over):
    how, rows = convolutional(tmp_path, name), pixels(2, 64)
    backbone = load_backbone(name, **how)
    with torch.inference_mode():
        maps = backbone.model.forward_features(backbone.forward(backbone.transform()).prepare(rows)).double()
    for pool, wanted in (("mean", maps.mean(over)), ("gem", (maps.clamp(min=1e-6) ** 3).mean(over) ** (1 / 3))):
        given = features(load_backbone(name, **how, kept=Kept(1, pool)), rows)
        torch.testing.assert_close(given.double(), wanted, rtol=1e-5, atol=1e-6)


def test_what_a_backbone_has_not_is_refused(tmp_path, shapes_folder):
    how = convolutional(tmp_path)
    for kept in (Kept(2), Kept(1, "cls+mean")):
        with pytest.raises(UsageError, match=rf"without a \[CLS\] token.*--layers {kept.layers} --pool"):
            load_backbone("test_efficientnet", **how, kept=kept)
    asked = ("extract", "--dataset", shapes_folder, "--root", tmp_path / "cache", *NANO)
    assert "6 blocks, with a [CLS] token" in tosca(*asked, "--layers", 7, code=2).output
    assert "--pool cannot be 'max'" in tosca(*asked, "--pool", "max", code=2).output


@pytest.fixture(scope="module")
def root(tmp_path_factory, shapes_folder):
    """Stores of the pictures: plain, of three layers, and of patch means."""
    root = tmp_path_factory.mktemp("cache")
    asked = ("extract", "--dataset", shapes_folder, "--root", root, "--views", 1, *NANO)
    for words in ((), ("--layers", 3), ("--pool", "mean")):
        tosca(*asked, *words, code=0)
    return root


@pytest.fixture
def stores(root):
    return [open_store(next(root.glob(f"shapes--vit_nano{which}--v1--*"))) for which in ("", "_3layers", "_mean")]


def test_a_store_says_what_its_pieces_are_and_grows_from_one_of_the_same_only(stores, root, shapes_folder, tmp_path):
    own, layers, mean = stores
    assert layers.spec.pieces == (("cls@-3", 192), ("cls@-2", 192), ("cls", 192)) and layers.dim == 576
    assert own.spec.pieces == () and mean.spec.pieces == (("mean", 192),)
    assert len({store.spec.digest() for store in stores}) == 3
    assert "'cls@-3'" in tosca("cache", "info", layers.path, code=0).output
    tosca("cache", "verify", layers.path, "--recompute", 3, code=0)
    tosca("cache", "export", layers.path, tmp_path / "out.npz", code=0)
    with np.load(tmp_path / "out.npz") as file:
        assert json.loads(str(file["store"]))["backbone"]["pieces"] == ["cls@-3", "cls@-2", "cls"]
        assert file["train/features"].shape[2] == 576
    asked = ("extract", "--dataset", shapes_folder, "--root", root, *NANO)
    grown = tosca(*asked, "--views", 2, "--layers", 3, code=0).output
    assert "taken from shapes--vit_nano_3layers" in " ".join(grown.split())
    assert "taken from" not in tosca(*asked, "--views", 1, "--layers", 2, code=0).output


def test_layup_learns_from_all_layers_and_others_what_a_store_without_layers_gives(stores, tmp_path):
    streams = [TaskStream.from_store(store, increment=1, seed=1) for store in stores[:2]]
    assert streams[0].dim == streams[1].dim == 192 and streams[1].seen_by("all").dim == 576
    for number in range(3):
        np.testing.assert_array_equal(*(s.task(number).train.features for s in streams))
        np.testing.assert_array_equal(*(s.test(number).features for s in streams))
    words, tables = ("--methods", "layup,lda", "--seeds", 1, "--increment", 1, "--json"), []
    for number, store in enumerate(stores[:2]):
        asked = ("compare", "--store", store.path, *words, "--ledger", tmp_path / f"{number}.sqlite")
        rows = json.loads(tosca(*asked, code=0).stdout)["rows"]
        tables.append({row["method"]: row["values"]["last_accuracy"] for row in rows})
    assert tables[0]["lda"] == tables[1]["lda"] and tables[0].keys() == {"layup", "lda"}
    run = ("train", "--store", stores[1].path, "--method", "layup", "--increment", 1, "--runs", tmp_path / "runs")
    assert "accuracy" in tosca(*run, code=0).output


@pytest.mark.parametrize(("method", "dim"), [("nmc", 192), ("layup", 576)])
def test_a_model_of_a_store_with_layers_sees_photos_as_it_has_learned_them(
    stores, shapes_folder, tmp_path, method, dim
):
    _, layers, mean = stores
    tosca("learn", tmp_path / "model", "--store", layers.path, "--method", method, code=0)
    card = json.loads(next((tmp_path / "model").rglob("model.json")).read_text())
    assert (card["dim"], card["backbone"]["layers"]) == (dim, dim // 192)
    photos, asked = sorted((shapes_folder / "test").rglob("*.png")), ("predict", tmp_path / "model", "--json")
    seen = map(json.loads, tosca(*asked, *photos, code=0).stdout.splitlines())
    stored = map(json.loads, tosca(*asked, "--features", layers.path, code=0).stdout.splitlines())
    by_name = {one["path"]: one for one in stored}
    for photo, one in zip(photos, seen, strict=True):
        other = by_name[f"test/{photo.relative_to(shapes_folder)}"]
        assert one["label"] == other["label"]
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)
    refused = tosca("learn", tmp_path / "model", "--store", mean.path, code=1)
    assert "pool" in refused.output and "not of the kind" in refused.output


def test_a_model_of_pooled_features_is_exported_with_its_pooling(stores, shapes_folder, tmp_path):
    tosca("learn", tmp_path / "pooled", "--store", stores[2].path, "--method", "nmc", code=0)
    words = ("--pt2", tmp_path / "model.pt2", "--photos", shapes_folder / "test")  # compared with the model's answers
    assert "model.pt2" in tosca("export", tmp_path / "pooled", *words, code=0).output
