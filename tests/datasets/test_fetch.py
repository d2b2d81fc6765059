"""`tosca fetch`: from servers that cut connections, lie about sizes and serve wrong bytes; whole or not there."""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from archive_help import tarred, tree, zipped
from commands import tosca
from file_server import serving

from tosca_cache.datasets import REGISTRY, KnownDataset, load_dataset, registry
from tosca_cache.extract.backbone import load_backbone

BIRDS = zipped(tree(side=256))  # 2 MB: what has arrived is written every 512 KiB
CUT = 700_000


@pytest.fixture
def birds(monkeypatch):
    """Makes `birds` a dataset that can be fetched, with this archive or another."""

    def known(archive=BIRDS, **changes):
        fields = {"archive": "birds.zip", "url": "http://127.0.0.1:9/birds.zip", "place": "birds"}
        fields |= {"md5": hashlib.md5(archive).hexdigest(), "stated_by": "the test"}
        monkeypatch.setattr(registry, "REGISTRY", {"birds": KnownDataset("birds", 2, 6, 4, **fields | changes)})

    known()
    return known


@pytest.fixture
def server():
    with serving({"birds.zip": BIRDS}) as running:
        yield running


def fetch(server, root, code=0):
    return tosca("fetch", "birds", "--mirror", server.address, "--data-root", root, code=code).output


def left(root, suffix=""):
    """What is below the data root apart from locks."""
    files = (p for p in root.rglob(f"*{suffix}") if p.is_file() and p.suffix != ".lock")
    return sorted(str(path.relative_to(root)) for path in files)


def test_a_dataset_is_there_whole_and_nothing_of_the_users_is_touched(tmp_path, birds, server):
    (tmp_path / ".fetched" / "birds.unpacked" / "old").mkdir(parents=True)  # of a process that was killed
    with (tmp_path / ".fetched" / "birds.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process" in fetch(server, tmp_path, code=1)
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "mine.txt").write_text("mine")
    assert "move it" in fetch(server, tmp_path, code=1) and server.requests == []
    (tmp_path / "birds" / "mine.txt").unlink()
    (tmp_path / "birds").rmdir()
    said = fetch(server, tmp_path)
    assert "2 classes, 6 train and 4 test images" in said and "md5 stated by the test" in said
    assert {p: (tmp_path / p).read_bytes() for p in left(tmp_path)} == tree(side=256), "the archive is gone"
    asked = len(server.requests)
    assert "was there already" in fetch(server, tmp_path) and len(server.requests) == asked
    for benchmark, orientation in ((False, "upright"), (True, "stored")):  # which is read as its numbers were made
        birds(benchmark=benchmark)
        assert load_dataset("birds", data_root=tmp_path).opener.decoding.orientation == orientation


def test_cut_connections_and_interrupted_commands_are_gone_on_with(tmp_path, birds, server):
    server.cut_after, server.cuts = CUT, 2
    fetch(server, tmp_path / "cut")
    starts = [int(asked[6:-1]) for _, asked in server.requests if asked]
    assert starts == sorted(set(starts)) and starts[0] == 1 << 19
    server.cuts, server.ranges = 1, False  # it cannot go on, and is asked for all of it
    fetch(server, tmp_path / "again")
    server.ranges, server.cuts, server.says = True, 10_000, len(BIRDS)
    server.files["birds.zip"] = BIRDS[:CUT]  # more is not there yet
    failed, root = fetch(server, tmp_path / "kept", code=1), tmp_path / "kept"
    assert "run the same command again" in failed and "birds.zip" in failed and not (root / "birds").exists()
    (part,) = left(root, ".part")
    kept = (root / part).stat().st_size
    server.files["birds.zip"], server.says, server.cuts = BIRDS, None, 0
    server.requests.clear()
    fetch(server, root)
    assert kept > 0 and ("birds.zip", f"bytes={kept}-") in server.requests
    assert [len(left(tmp_path / name, ".png")) for name in ("cut", "again", "kept")] == [10, 10, 10]


def test_wrong_bytes_sizes_and_counts_leave_nothing(tmp_path, birds, server):
    few = zipped(tree(train=2))
    server.files["birds.zip"] = few
    failed = fetch(server, tmp_path, code=1)
    assert hashlib.md5(BIRDS).hexdigest() in failed and "thrown away" in failed and left(tmp_path) == []
    birds(few)  # these bytes, but not these counts
    failed = fetch(server, tmp_path, code=1)
    assert "4 train" in failed and "6" in failed and left(tmp_path, ".png") == []
    server.files["birds.zip"] = BIRDS
    for lie in ({"says": 500}, {"says": 10**8}, {"says": None, "status": 404}, {"status": 500}):
        birds()
        vars(server).update(lie)
        assert str(lie.get("status", "")) in fetch(server, tmp_path, code=1) and not (tmp_path / "birds").exists()
    server.status = None
    birds(size=len(BIRDS) - 1)
    assert f"{len(BIRDS):,} bytes" in fetch(server, tmp_path, code=1) and left(tmp_path) == []


def test_an_archive_that_is_here_whatever_its_folders_are_called(tmp_path, birds):
    archive, fetched = tmp_path / "got.bin", ("fetch", "birds", "--data-root", tmp_path, "--from")
    tosca(*fetched, archive, code=2)
    renamed = {path.replace("/test/", "/val/"): data for path, data in tree("deep/birds2-160").items()}
    archive.write_bytes(tarred(renamed.items()))
    birds(archive.read_bytes())
    tosca(*fetched, archive, code=0)
    assert len(left(tmp_path / "birds" / "test", ".png")) == 4 and archive.is_file()


def test_google_drive_and_what_needs_a_browser(tmp_path, birds, monkeypatch):
    """Drive itself is out of reach here: what gdown is asked for is looked at, and it brings the archive."""
    import gdown

    asked = {}

    def download(**options):
        asked.update(options)
        Path(options["output"]).write_bytes(BIRDS)

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "gdown", None)
        failed = tosca("fetch", "birds", "--data-root", tmp_path, code=2).output
        assert "tosca-cache[fetch]" in failed and "--from FILE" in failed
    birds(url=None, drive="1abc")
    monkeypatch.setattr(gdown, "download", download)
    tosca("fetch", "birds", "--data-root", tmp_path, code=0)
    assert asked["id"] == "1abc" and asked["resume"] and "url" not in asked
    monkeypatch.setattr(registry, "REGISTRY", REGISTRY)
    failed = tosca("fetch", "objectnet", "--data-root", tmp_path, code=2).output
    assert "sharepoint.com" in failed and "--from objnet.tgz" in failed


def test_the_list_says_what_is_there_sizes_sources_and_who_states_checksums(tmp_path):
    text = tosca("fetch", "--list", "--data-root", tmp_path, columns=200, code=0).output
    words = " ".join(text.split())
    assert "│ digits │ 10 │ 1258 │ 539 │ embedded │ in this package │" in words and "tosca fetch" in words
    assert f"│ vtab │ 50 │ 1796 │ 8619 │ missing │ {tmp_path / 'vtab-cil' / 'vtab'} │" in words
    assert "169 MB" in words and "size not published" in words and all(f"│ {name} │" in words for name in REGISTRY)
    assert all(known.stated_by in words and known.md5 for known in REGISTRY.values() if known.archive)
    assert text == tosca("datasets", "--data-root", tmp_path, columns=200).output
    for name, said in (("cubs", "cub"), ("digits", "could be fetched")):
        assert said in tosca("fetch", name, "--data-root", tmp_path, code=2).output


def fetch_weights(names, root, address):
    """In a process of its own, for huggingface_hub reads its address and its cache once."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(root / "hub"), "TORCH_HOME": str(root / "torch")}
    code = "from tosca_cache.cli import main; main()"
    command = [sys.executable, "-c", code, "fetch", "--weights", *names, "--data-root", str(root / "data")]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def test_weights_are_named_exactly(tiny_weights, tmp_path):
    result = fetch_weights(["vit_small_patch14_dinov2.lvd142m"], tmp_path, "http://127.0.0.1:9")
    assert result.returncode == 1 and "not on this machine" in result.stderr and "Traceback" not in result.stderr
    name = "test_vit.r160_in1k"
    config = {"tag": "mine", "input_size": [3, 160, 160], "fixed_input_size": True}
    own = json.dumps({"architecture": "test_vit", "pretrained_cfg": config}).encode()
    contents = {"model.safetensors": tiny_weights.read_bytes(), "config.json": own}
    files = {f"{repo}/resolve/main/{file}": contents[file] for repo in (f"timm/{name}", "me/it") for file in contents}
    with serving(files) as server:
        result = fetch_weights([name, "hf-hub:me/it"], tmp_path, server.address)
    assert result.returncode == 0, result.stderr
    digest = load_backbone("test_vit", weights=tiny_weights).weights_digest
    assert f"{name}: {name}, digest {digest}\n" in result.stdout
    assert f"hf-hub:me/it: test_vit.mine, digest {digest}\n" in result.stdout
    for wrong in ("vit_none", "hf-hub:none"):
        assert wrong in tosca("fetch", "--weights", wrong, "--data-root", tmp_path, code=1).output
