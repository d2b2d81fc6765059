"""Files that mean harm are refused in words, soon, with little memory, and leave nothing in the root."""

import io
import json
import os
import pickle
import re
import shutil
import zipfile
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from disk_waits import without_waiting

from tosca_cache.errors import StoreError, UsageError
from tosca_cache.store.exchange import ImportRequest, Naming, export_store, import_files
from tosca_cache.store.manifest import seal
from tosca_cache.untrusted import Reader, child, open_untrusted

X = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
GOOD = {"x": X, "y": np.arange(12) % 2, "is_test": np.arange(12) % 3 == 0}


def refuse(path, root, match, error=StoreError, **more):
    """Imports a file of arrays and asserts that it is refused without a trace."""
    with pytest.raises(error, match=match) as caught:
        import_files(ImportRequest(Path(path), root, Naming("evil"), **more))
    assert caught.value.remedy
    assert caught.value.where
    assert not root.exists() or not list(root.iterdir())


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def save_npz(path, members):
    """Writes {member: bytes or array} as an .npz."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            data = content
            if isinstance(content, np.ndarray):
                held = io.BytesIO()
                np.save(held, content, allow_pickle=True)
                data = held.getvalue()
            file.writestr(f"{name}.npy", data)
    return path


def npy(shape, descr="<f4", data=b""):
    """A member whose header claims a shape."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize(
    ("members", "match"),
    [
        ({"x": npy((10**12, 4))}, "longer or shorter"),
        ({"x": npy((10**30, 10**30))}, "longer or shorter"),
        ({"x": npy((-1, 4))}, "longer or shorter"),
        ({"x": npy((12, 4), data=b"\0" * 100)}, "longer or shorter"),
        ({"x": npy((12, 4), data=b"\0" * 300)}, "longer or shorter"),
        ({"x": npy((3,), descr="|O", data=pickle.dumps([Bomb()] * 3))}, "Python objects"),
        ({"x": npy((1,), descr="<U1000000", data=b"\0" * 4000000)}, "absurdly long"),
        ({"x": npy((True, 4))}, "longer or shorter|damaged"),
        ({"x": npy("__import__('os').mkdir('pwned')")}, "damaged"),
        ({"x": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535}, "damaged"),
        ({"x": b"\x93NUMPY\x09\x00abc"}, "version"),
        ({"x": b"no array"}, "damaged"),
        ({f"x{n}": npy((0,)) for n in range(2000)}, "more than 1024 arrays"),
    ],
)
def test_npz_members_that_lie(tmp_path, root, monkeypatch, members, match):
    monkeypatch.chdir(tmp_path)
    refuse(save_npz(tmp_path / "a.npz", GOOD | members), root, match)
    assert not Path("pwned").exists()


def test_npz_that_is_pickled_throughout(tmp_path, root):
    objects = np.array([Bomb()] * 12, dtype=object)
    refuse(save_npz(tmp_path / "a.npz", GOOD | {"x": objects}), root, "Python objects")


def test_a_zip_bomb_is_seen_in_its_header(tmp_path, root):
    size = 288 << 20
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        with file.open("x.npy", "w") as member:
            member.write(npy((size // 16, 4)))
            for _ in range(size >> 20):
                member.write(b"\0" * (1 << 20))
        file.writestr("y.npy", npy((size // 16,), "|u1", b"\0" * (size // 16)))
    assert (tmp_path / "a.npz").stat().st_size < 2 << 20
    refuse(tmp_path / "a.npz", root, r"claims to hold .* are allowed", most=None)


def test_zip_oddities(tmp_path, root):
    path = save_npz(tmp_path / "a.npz", GOOD)
    data = path.read_bytes()
    for name, change, match in (
        ("cut", data[: len(data) // 2], "end is missing"),
        ("directory", data.replace(b"PK\x01\x02", b"PK\x01\x09"), "damaged"),
        ("encrypted", data.replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x01\x00\x08\x00"), "encrypted|damaged"),
        ("lzma", data.replace(b"\x14\x00\x00\x00\x08\x00", b"\x14\x00\x00\x00\x0e\x00"), "other means|damaged"),
        ("flipped", data[:90] + bytes([data[90] ^ 16]) + data[91:], "damaged|longer or shorter"),
        ("empty", b"", "neither an .npz"),
        ("pickle", pickle.dumps([Bomb()]), "neither an .npz"),
    ):
        (tmp_path / name).write_bytes(change)
        refuse(tmp_path / name, root, match)
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as file, pytest.warns(UserWarning, match="Duplicate"):
        file.writestr("x.npy", npy((0,)))
        file.writestr("x.npy", npy((0,)))
    refuse(tmp_path / "twice.npz", root, "two arrays called 'x'")


def save_h5(path, **more):
    with h5py.File(path, "w") as file:
        for name, value in (GOOD | more).items():
            if callable(value):
                value(file)
            else:
                file[name] = value
    return path


def virtual(file):
    layout = h5py.VirtualLayout((12, 4), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (12, 4))
    file.create_virtual_dataset("x", layout)


def fill_only(shape, **more):
    return lambda file: file.create_dataset("x", shape, "f4", fillvalue=1.0, **more)


def loop(file):
    group = file.create_group("g")
    group["again"] = group


def crowd(file):
    group = file.create_group("g")
    for number in range(5000):
        group.create_group(str(number))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (fill_only((10**12, 4), chunks=(16, 4)), "claims to hold"),
        (fill_only((2**62, 2**61), chunks=(16, 4)), "no possible shape"),
        (fill_only((10**9, 4), chunks=(16, 4), compression="gzip"), "claims to hold"),
        (fill_only((10**9, 40), chunks=(10**6, 40), maxshape=(None, 40)), "too large to be read one by one"),
        (lambda file: file.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/x")), "is a link"),
        (lambda file: file.__setitem__("x", h5py.SoftLink("/y")), "is a link"),
        (lambda file: file.create_dataset("x", (12, 4), "f4", external=[("/etc/passwd", 0, 192)]), "in another file"),
        (virtual, "in another file"),
        (lambda file: file.create_dataset("x", data=X, compression="szip"), "other means|szip"),
        (lambda file: file.create_dataset("x", data=X, scaleoffset=3), "other means"),
        (lambda file: file.create_dataset("x", (12,), h5py.ref_dtype), "needed|ref"),
        (lambda file: file.create_dataset("x", (12,), h5py.vlen_dtype("f4")), "needed"),
        (lambda file: file.create_dataset("x", (12,), [("a", "f4"), ("b", "f4")]), "needed"),
        (lambda file: file.create_dataset("x", (12, 4), "c8"), "needed"),
        (lambda file: file.create_dataset("x", (12,), "S1000000"), "absurdly long"),
        (lambda file: file.create_dataset("x", data=h5py.Empty("f4")), "is empty"),
        (loop, "without end"),
        (crowd, "too many objects"),
    ],
)
def test_hdf5_features_that_are_not_needed(tmp_path, root, x, match):
    try:
        save_h5(tmp_path / "a.h5", x=x)
    except ValueError as error:  # this libhdf5 cannot write what is to be refused
        pytest.skip(str(error))
    refuse(tmp_path / "a.h5", root, match)


def test_texts_without_end_in_hdf5(tmp_path, root):
    texts = np.array(["a" * 70_000] + ["b"] * 11, dtype=object)
    refuse(save_h5(tmp_path / "a.h5", y=texts), root, "absurdly long")
    refuse(save_h5(tmp_path / "b.h5", y=np.array([b"\xff\xfe"] * 12)), root, "no UTF-8")


def test_rows_that_all_point_to_one_long_text(tmp_path, root, monkeypatch):
    monkeypatch.setattr(child, "TEXTS_FLOOR", child.TEXTS_FLOOR // 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in GOOD.items():
            if name != "y":
                file[name] = value
        target = file.create_dataset("y", (5_000,), h5py.string_dtype(), chunks=(1000,))
        target[0] = "a" * 15_000
        reference = target.id.read_direct_chunk((0,))[1][:16]
        for start in range(0, 5_000, 1000):
            target.id.write_direct_chunk((start,), reference * 1000)
    assert (tmp_path / "a.h5").stat().st_size < 5 << 20
    refuse(tmp_path / "a.h5", root, "absurdly long")


def test_names_of_arrays_do_not_steer_the_terminal(tmp_path, root):
    refuse(save_npz(tmp_path / "a.npz", GOOD | {"\x1b[2Jx": X}), root, "cannot be printed")
    with h5py.File(save_h5(tmp_path / "a.h5"), "r+") as file:
        file["\x1b[2J"] = h5py.SoftLink("/x")
    with pytest.raises(StoreError, match="is a link") as caught:
        import_files(ImportRequest(tmp_path / "a.h5", root, Naming("evil")))
    assert "\x1b" not in str(caught.value)


def test_a_compressed_chunk_that_inflates_beyond_its_size(tmp_path, root, readers, monkeypatch):
    """By children that are given an eighth of the usual memory, which otherwise takes its time to be filled."""
    packer = zlib.compressobj(9)
    start, block = (packer.compress(b"\0" * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2))
    bomb = start + 4096 * block  # 4 GiB
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in GOOD.items():
            if name != "x":
                file[name] = value
        target = file.create_dataset("x", (12, 4), "f4", chunks=(12, 4), compression="gzip")
        target.id.write_direct_chunk((0, 0), bomb)
    start = child._START.replace(".serve import main; main(", " import serve; serve.MEMORY //= 8; serve.main(")
    assert start != child._START
    monkeypatch.setattr(child, "_START", start)
    for reader in readers:  # they start again when they are needed
        reader.close()
    refuse(tmp_path / "a.h5", root, "damaged|memory")
    (pid,) = (reader._process.pid for reader in readers if reader._process)
    (most,) = re.findall(r"VmHWM:\s+([0-9]+) kB", Path(f"/proc/{pid}/status").read_text())
    assert int(most) < 400 << 10
    for reader in readers:
        reader.close()


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "device", "missing"])
def test_what_is_no_file(tmp_path, root, kind):
    path = tmp_path / "thing"
    if kind == "link":
        path.symlink_to(save_npz(tmp_path / "real.npz", GOOD))
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    refuse(path, root, "link|no regular file|cannot be opened")


def test_a_link_in_place_of_the_store_or_its_staging_is_not_followed(toy, original, tmp_path, root):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    root.mkdir()
    for name in ("toy", ".toy.compact"):
        (root / name).symlink_to(outside)
        with pytest.raises((StoreError, UsageError)):
            import_files(ImportRequest(original, root))
        (root / name).unlink()
    assert [path.name for path in outside.iterdir()] == ["precious"]
    assert import_files(ImportRequest(original, root)).store.manifest == toy.manifest


@pytest.fixture(scope="session")
def original(toy, tmp_path_factory):
    """An exported store."""
    with pytest.MonkeyPatch.context() as patch:
        without_waiting(patch)
        return export_store(toy, tmp_path_factory.mktemp("exported") / "toy.h5")


def resealed(change):
    """A change of the manifest's content, sealed again."""

    def apply(file):
        content = json.loads(file["manifest"][()].tobytes())
        body = {key: value for key, value in content.items() if key not in ("format", "digest")}
        change(body)
        data = np.frombuffer(seal(body), dtype=np.uint8)
        file["manifest"].resize((len(data),))
        file["manifest"][:] = data

    return apply


def replaced(name, value):
    def apply(file):
        del file[name]
        file[name] = value

    return apply


def assigned(name, place, value):
    return lambda file: file[name].__setitem__(place, value)


def named(name):
    return lambda file: file.attrs.__setitem__("name", np.bytes_(name))


def digest_of_another(body):
    body["shards"]["train"][0]["labels"]["sha256"] = "0" * 64


def more_rows(body):
    body["layout"]["train"]["rows"] = 10**12


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (named("../../evil"), "no name of a folder"),
        (named("/etc/evil"), "no name of a folder"),
        (named("C:evil"), "no name of a folder"),
        (named(".hidden"), "no name of a folder"),
        (named("evil.partial"), "no name of a folder"),
        (named("a" * 300), "no name of a folder"),
        (named(b"a\xffb"), "damaged|no name of a folder"),
        (lambda file: file.attrs.__setitem__("version", 2), "version 2"),
        (lambda file: file.__delitem__("test/labels"), "lacks test/labels"),
        (assigned("manifest", 30, ord("z")), "cannot be trusted"),
        (resealed(digest_of_another), "labels are not what the manifest describes"),
        (resealed(more_rows), "manifest"),
        (resealed(lambda body: body.update(class_names=["ant"])), "manifest describes|names|must be from|not those"),
        (resealed(lambda body: body["class_names"].reverse()), "class_names are not those of the manifest"),
        (assigned("train/features", (3, 0, 0), 2.5), "rows 0 to 13 of train/features are not what"),
        (assigned("train/features", (3, 0, 0), np.nan), "not finite"),
        (assigned("train/labels", 3, 77), "must be from 0 to 3"),
        (assigned("train/labels", 3, -1), "must be from 0 to 3"),
        (assigned("test/views", (0, 0, 0), 5), "test/views are not what"),
        (assigned("train/paths", 3, b"../../evil"), "path of an image"),
        (assigned("train/paths", 3, b"/etc/passwd"), "path of an image"),
        (assigned("train/paths", 3, b"train/other.jpg"), "train/paths are not what"),
        (replaced("train/features", np.zeros((70, 3, 24), "f4")), "is not the"),
        (replaced("train/features", np.zeros((71, 3, 24), "f2")), "is not the"),
        (replaced("train/labels", np.zeros(70)), "is not the"),
        (replaced("manifest", np.zeros(3)), "no list of bytes"),
        (assigned("provenance", 0, ord("[")), "provenance is no valid JSON"),
        (assigned("zarr/train/labels/zarr.json", 20, ord("9")), "zarr.json is not what the manifest"),
    ],
)
def test_an_exported_store_that_is_not_what_its_manifest_says(original, tmp_path, root, change, match):
    path = Path(shutil.copy(original, tmp_path / "evil.h5"))
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(StoreError, match=match) as caught:
        import_files(ImportRequest(path, root))
    assert caught.value.remedy
    assert not root.exists() or not list(root.iterdir())
    assert {entry.name for entry in tmp_path.iterdir()} <= {"evil.h5", "root"}


def test_a_metadata_object_of_other_codecs_is_refused(original, tmp_path, root):
    """Even if the manifest has its digest: what zarr is told to run must be what zarr here would say."""
    import hashlib

    path = Path(shutil.copy(original, tmp_path / "evil.h5"))
    key = "train/labels/zarr.json"
    with h5py.File(path, "r+") as file:
        content = json.loads(file[f"zarr/{key}"][()].tobytes())
        content["codecs"].append({"name": "gzip", "configuration": {"level": 5}})
        data = json.dumps(content).encode()
        file[f"zarr/{key}"].resize((len(data),))
        file[f"zarr/{key}"][:] = np.frombuffer(data, np.uint8)
        record = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        resealed(lambda body: body["metadata"].__setitem__(key, record))(file)
    with pytest.raises(StoreError, match="describes another array"):
        import_files(ImportRequest(path, root))
    assert not list(root.iterdir())


def test_a_reader_that_dies_or_hangs_is_an_error_in_words(tmp_path, monkeypatch):
    path = save_npz(tmp_path / "a.npz", GOOD)
    with Reader() as reader:
        file = reader.open(path)
        reader._process.kill()
        with pytest.raises(StoreError, match=r"crashed its reader \(signal 9\)"):
            file.read("x")
        assert np.array_equal(reader.open(path).read("x"), X)  # by another child
    monkeypatch.setattr("tosca_cache.untrusted.child._START", "import time; time.sleep(60) # {root!r} {descriptor}")
    with Reader(patience=0.5) as reader, pytest.raises(StoreError, match="still busy after"):
        reader.open(path)


def test_a_child_that_lies_is_not_believed(tmp_path, monkeypatch):
    path = save_npz(tmp_path / "a.npz", GOOD)
    say = "import socket; s = socket.socket(fileno={descriptor}); s.recv(9); d = {answer!r}; # {root!r}\n"
    for answer in (
        b"\xff\xff\xff\xff",
        b"\x02\x00\x00\x00[]",
        b"\x02\x00\x00\x00{]",
        b'\x12\x00\x00\x00{"bytes": 10000000000000}'.replace(b"\x12", b"\x19"),
        b'\x0d\x00\x00\x00{"arrays": 1}',
        b'\x1d\x00\x00\x00{"arrays": [{"name": "../x"}]}'.replace(b"\x1d", b"\x1e"),
        b"",
    ):
        code = say.replace("{answer!r}", repr(answer).replace("{", "{{").replace("}", "}}"))
        monkeypatch.setattr("tosca_cache.untrusted.child._START", code + "s.sendall(d); s.recv(9)")
        with Reader(patience=1.5) as reader, pytest.raises(StoreError, match="cannot be read"):
            reader.open(path)


def test_the_child_can_neither_write_nor_open_other_files(tmp_path, monkeypatch):
    path = save_npz(tmp_path / "a.npz", GOOD)
    with open_untrusted(path) as file:
        pid = file._reader._process.pid
        limits = Path(f"/proc/{pid}/limits").read_text()
        highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    lines = {line[:26].strip(): line[26:].split()[0] for line in limits.splitlines()[1:]}
    assert lines["Max file size"] == "0"
    assert int(lines["Max open files"]) <= highest + 1
    assert int(lines["Max address space"]) < 4 << 30
