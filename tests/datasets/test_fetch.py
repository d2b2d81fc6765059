"""`tosca fetch`: from servers that cut connections, lie about sizes and serve wrong bytes; whole or not there."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from archive_help import source_for, tarred, tree, zipped
from commands import tosca
from file_server import COMMIT, serving

from tosca_cache.datasets import fetch as fetching
from tosca_cache.datasets import sources
from tosca_cache.datasets.sources import SOURCES, source_of
from tosca_cache.errors import UsageError

BIRDS = zipped(tree(side=256))  # 2 MB: what has arrived is written every 512 KiB
CUT = 700_000


@pytest.fixture
def birds(monkeypatch):
    """Makes `birds` a dataset that can be fetched, with this archive or another."""

    def known(archive=BIRDS, **changes):
        found = {"birds": source_for(archive, **changes)}
        monkeypatch.setattr(sources, "SOURCES", found)
        monkeypatch.setattr(fetching, "SOURCES", found)

    known()
    return known


@pytest.fixture
def server():
    with serving({"birds.zip": BIRDS}) as running:
        yield running


def fetch(server, root, *options, code=0):
    return tosca("fetch", "birds", "--mirror", server.address, "--data-root", root, *options, code=code)


def left(root):
    """What is below the data root apart from locks."""
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_dataset_is_there_whole_and_recorded(tmp_path, birds, server):
    (tmp_path / ".fetched" / "birds.unpacked" / "old").mkdir(parents=True)  # of a process that was killed
    result = fetch(server, tmp_path)
    assert not (tmp_path / ".fetched" / "birds.unpacked").exists()
    digest = hashlib.sha256(BIRDS).hexdigest()
    assert "2 classes, 6 train and 4 test images" in result.output and digest in result.output
    assert {p: (tmp_path / p).read_bytes() for p in left(tmp_path) if p.endswith(".png")} == tree(side=256)
    record = json.loads((tmp_path / ".fetched" / "birds.json").read_text())
    assert (record["sha256"], record["bytes"]) == (digest, len(BIRDS)) and "the test" in record["checked"]
    before = len(server.requests)
    assert "was there already" in fetch(server, tmp_path).output
    assert len(server.requests) == before
    assert len([p for p in left(tmp_path) if not p.endswith(".png")]) == 1  # the record; the archive is gone
    extracted = tosca("extract", "--dataset", tmp_path / "birds", "--root", tmp_path / "s", "--backbone", "vit_nano",
                      "--views", "0", code=0)  # fmt: skip
    assert "10 images" in extracted.output


def test_a_cut_connection_goes_on_where_it_was(tmp_path, birds, server):
    server.cut_after, server.cuts = CUT, 2
    fetch(server, tmp_path)
    starts = [int(asked[6:-1]) for _, asked in server.requests if asked]
    assert starts == sorted(set(starts)) and starts[0] == 1 << 19
    assert len([p for p in left(tmp_path) if p.endswith(".png")]) == 10


def test_an_interrupted_command_is_gone_on_with(tmp_path, birds, server):
    server.cut_after, server.cuts = CUT, 10_000
    server.files["birds.zip"] = BIRDS[:CUT]  # more is not there yet
    server.says = len(BIRDS)
    failed = fetch(server, tmp_path, code=1)
    assert "run the same command again" in failed.output and "birds.zip" in failed.output
    assert not (tmp_path / "birds").exists()
    (part,) = [p for p in left(tmp_path) if p.endswith(".part")]
    kept = (tmp_path / part).stat().st_size
    assert kept > 0
    server.files["birds.zip"], server.says, server.cuts = BIRDS, None, 0
    server.requests.clear()
    fetch(server, tmp_path)
    assert ("birds.zip", f"bytes={kept}-") in server.requests


def test_a_server_that_cannot_go_on_is_asked_for_all_of_it(tmp_path, birds, server):
    server.cut_after, server.cuts, server.ranges = CUT, 1, False
    fetch(server, tmp_path)
    assert len([p for p in left(tmp_path) if p.endswith(".png")]) == 10


def test_wrong_bytes_are_refused_and_thrown_away(tmp_path, birds, server):
    server.files["birds.zip"] = zipped(tree(train=2))
    failed = fetch(server, tmp_path, code=1)
    assert hashlib.md5(BIRDS).hexdigest() in failed.output and "thrown away" in failed.output
    assert left(tmp_path) == []
    server.files["birds.zip"] = BIRDS
    fetch(server, tmp_path)


@pytest.mark.parametrize("lie", [{"says": 500}, {"says": 10**8}, {"status": 404}, {"status": 500}])
def test_a_server_that_lies_about_the_size_or_has_nothing(tmp_path, birds, server, lie):
    for name, value in lie.items():
        setattr(server, name, value)
    failed = fetch(server, tmp_path, code=1)
    assert not (tmp_path / "birds").exists()
    assert str(lie.get("status", "")) in failed.output


def test_more_bytes_than_published_end_the_download(tmp_path, birds, server):
    birds(size=len(BIRDS) - 1)
    failed = fetch(server, tmp_path, code=1)
    assert f"{len(BIRDS):,} bytes" in failed.output and left(tmp_path) == []


def test_another_archive_by_its_own_checksum(tmp_path, birds, server):
    other = zipped(tree(folder="packed/anew"))
    server.files["birds.zip"] = other
    digest = hashlib.sha256(other).hexdigest()
    fetch(server, tmp_path, "--sha256", "0" * 64, code=1)
    assert "--sha256" in fetch(server, tmp_path, "--sha256", digest.upper()).output
    tosca("fetch", "birds", "--sha256", "abc", "--data-root", tmp_path, code=2)


def test_other_counts_than_published_leave_nothing(tmp_path, birds, server):
    few = zipped(tree(train=2))
    birds(few)
    server.files["birds.zip"] = few
    failed = fetch(server, tmp_path, code=1)
    assert "4 train" in failed.output and "6" in failed.output
    assert not (tmp_path / "birds").exists() and not list(tmp_path.rglob("*.png"))


def test_from_a_file(tmp_path, birds):
    archive = tmp_path / "got.bin"
    archive.write_bytes(BIRDS)
    tosca("fetch", "birds", "--from", archive, "--data-root", tmp_path / "data", code=0)
    assert archive.read_bytes() == BIRDS and (tmp_path / "data" / "birds" / "test").is_dir()
    tosca("fetch", "birds", "--from", tmp_path / "none", "--data-root", tmp_path, code=2)


def test_a_tar_with_other_names_for_its_folders(tmp_path, birds):
    files = {path.replace("/test/", "/val/"): data for path, data in tree("deep/birds2-160").items()}
    archive = tarred(files.items())
    birds(archive, inside=("train", "val"), renamed=(("val", "test"),))
    (tmp_path / "a.tgz").write_bytes(archive)
    tosca("fetch", "birds", "--from", tmp_path / "a.tgz", "--data-root", tmp_path, code=0)
    assert len(list((tmp_path / "birds" / "test").rglob("*.png"))) == 4


def test_one_folder_of_classes(tmp_path, birds):
    archive = zipped({p.replace("birds/train", "x/2750"): d for p, d in tree().items() if "train" in p})
    birds(archive, inside=("2750",), take="2750", counts=(2, 6, 0))
    (tmp_path / "a.zip").write_bytes(archive)
    result = tosca("fetch", "birds", "--from", tmp_path / "a.zip", "--data-root", tmp_path, code=0)
    assert "--test-fraction" in result.output and len(list((tmp_path / "birds" / "ant").iterdir())) == 3


def test_something_in_its_place_is_left_alone(tmp_path, birds, server):
    (tmp_path / "birds").mkdir()
    (tmp_path / "birds" / "mine.txt").write_text("mine")
    assert "move it" in fetch(server, tmp_path, code=1).output
    assert (tmp_path / "birds" / "mine.txt").read_text() == "mine" and server.requests == []


def test_without_gdown_a_sentence_says_what_to_do(tmp_path, birds, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    failed = tosca("fetch", "birds", "--data-root", tmp_path, code=2)
    assert "tosca-cache[fetch]" in failed.output and "--from FILE" in failed.output


def test_google_drive_is_asked_by_number(tmp_path, birds, monkeypatch):
    """Drive itself is out of reach here: what gdown is asked for is looked at, and it brings the archive."""
    import gdown

    asked = {}

    def download(**options):
        asked.update(options)
        Path(options["output"]).write_bytes(BIRDS)

    birds(url=None, drive="1abc")
    monkeypatch.setattr(gdown, "download", download)
    tosca("fetch", "birds", "--data-root", tmp_path, code=0)
    assert asked["id"] == "1abc" and asked["resume"] and "url" not in asked


def test_one_that_needs_a_browser_says_so(tmp_path):
    failed = tosca("fetch", "objectnet", "--data-root", tmp_path, code=2)
    assert "sharepoint.com" in failed.output and "--from objnet.tgz" in failed.output


def test_two_processes_do_not_fetch_the_same(tmp_path, birds, server):
    import fcntl

    (tmp_path / ".fetched").mkdir()
    with (tmp_path / ".fetched" / "birds.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert "another process" in fetch(server, tmp_path, code=1).output


def test_the_list_says_sizes_sources_and_who_states_checksums(tmp_path):
    rows = json.loads(tosca("fetch", "--list", "--json", "--data-root", tmp_path, code=0).output)
    by_name = {row["name"]: row for row in rows}
    assert by_name["cifar100"]["size"] == 169_001_437 and by_name["cub"]["size"] is None
    assert all(row["stated_by"] and row["md5"] for row in rows)
    text = tosca("fetch", "--list", "--data-root", tmp_path, code=0).output
    assert "169 MB" in text and all(name in text for name in SOURCES)


def test_every_name_of_the_issue_is_known():
    for name in ("cifar100", "cub", "imagenet-a", "imagenet-r", "objectnet", "omnibenchmark", "vtab"):
        assert source_of(name).counts[2] > 0
    with pytest.raises(UsageError, match="made by this package"):
        source_of("digits")
    with pytest.raises(UsageError) as raised:
        source_of("cubs")
    assert "cub" in raised.value.remedy


def fetch_weights(names, root, address):
    """In a process of its own, for huggingface_hub reads its address and its cache once."""
    own = {"HF_ENDPOINT": address, "HF_HOME": str(root / "hub"), "TORCH_HOME": str(root / "torch")}
    code = "from tosca_cache.cli import main; main()"
    command = [sys.executable, "-c", code, "fetch", "--weights", *names, "--data-root", str(root / "data"), "--json"]
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def test_weights_without_network(tmp_path):
    result = fetch_weights(["vit_small_patch14_dinov2.lvd142m"], tmp_path, "http://127.0.0.1:9")
    assert result.returncode == 1
    assert "not on this machine" in result.stderr and "Traceback" not in result.stderr


def test_weights_are_named_exactly(tmp_path):
    name, data = "vit_tiny_patch16_224.augreg_in21k", b"weights" * 1000
    config = json.dumps({"architecture": "vit_tiny_patch16_224", "pretrained_cfg": {"tag": "augreg_in21k"}}).encode()
    place = f"timm/{name}/resolve"
    files = {f"{place}/{of}/model.safetensors": data for of in ("main", COMMIT)}
    files |= {f"{place}/{of}/config.json": config for of in ("main", COMMIT)}
    with serving(files) as server:
        result = fetch_weights([name, f"hf-hub:timm/{name}"], tmp_path, server.address)
    assert result.returncode == 0, result.stderr
    for found in json.loads(result.stdout):
        assert (found["arch"], found["tag"]) == ("vit_tiny_patch16_224", "augreg_in21k")
        assert (found["origin"], found["sha256"]) == (f"timm/{name}@{COMMIT}", hashlib.sha256(data).hexdigest())


def test_weights_that_do_not_exist(tmp_path):
    assert "timm has no model" in tosca("fetch", "--weights", "vit_none", "--data-root", tmp_path, code=1).output
    assert "OWNER/NAME" in tosca("fetch", "--weights", "hf-hub:none", "--data-root", tmp_path, code=1).output


def test_an_address_is_held_to_its_first_download(tmp_path, server):
    server.files["other/birds.v2.zip"] = BIRDS
    address = f"{server.address}/other/birds.v2.zip"
    first = tosca("fetch", address, "--data-root", tmp_path, code=0).output
    assert "nobody states a checksum" in first and hashlib.sha256(BIRDS).hexdigest() in first
    (tmp_path / "birds").rename(tmp_path / "aside")
    server.files["other/birds.v2.zip"] = zipped(tree(train=2))
    assert "first download" in tosca("fetch", address, "--data-root", tmp_path, code=1).output
    assert not (tmp_path / "birds").exists()
