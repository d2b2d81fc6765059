"""Archives that nobody should unpack: what is refused, and that nothing of it lands outside."""

import gzip
import io
import struct
import tarfile
import zipfile

import pytest
from archive_help import image, tarred, zipped

from tosca_cache.datasets import archives
from tosca_cache.datasets.archives import unpack
from tosca_cache.errors import DatasetError

PHOTO = image(0)


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_link():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        info = zipfile.ZipInfo("train/a/link.jpg")
        info.external_attr = 0o120777 << 16
        packed.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def encrypted():
    data = bytearray(zipped({"a.jpg": PHOTO}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.index(signature) + offset
        data[place] |= 1
    return bytes(data)


def zip_bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", bytes(archives.SPARE + (archives.SPARE >> 1)))
    return buffer.getvalue()


def zip_that_lies():
    """Says that it has few bytes, and unpacks to many."""
    data = bytearray(zip_bomb())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = data.index(signature) + offset
        data[place : place + 4] = struct.pack("<I", 1000)
    return bytes(data)


def long_header():
    """A name that says it has a gigabyte."""
    head = tarfile.TarInfo("././@LongLink")
    head.type, head.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    return gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 22))


def negative():
    """A file whose size leads back to its own header."""
    head = bytearray(tarfile.TarInfo("0.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 8 + (-512 & 0xFFFFFFFF).to_bytes(4, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head) + bytes(1024)


def pax_size(size):
    """A file whose size stands in an extended header."""
    info = member("a.jpg")
    info.pax_headers = {"size": size}
    return tarred([(info, PHOTO), ("b.jpg", PHOTO)], "w", format=tarfile.PAX_FORMAT)


HOSTILE = {
    "zip: above": (zipped({"../outside.jpg": PHOTO}), "outside"),
    "zip: absolute": (zipped({"/tmp/outside.jpg": PHOTO}), "outside"),
    "zip: deep above": (zipped({"a/b/../../../outside.jpg": PHOTO}), "outside"),
    "zip: control characters": (zipped({"a/\x1b[2J.jpg": PHOTO}), "control"),
    "zip: link": (zip_link(), "neither a file nor a folder"),
    "zip: bomb": (zip_bomb, "photos have not"),
    "zip: lies": (zip_that_lies, "damaged"),
    "zip: encrypted": (encrypted(), "encrypted"),
    "tar: above": (tarred([("../outside.jpg", PHOTO)]), "outside"),
    "tar: absolute": (tarred([("/tmp/outside.jpg", PHOTO)]), "outside"),
    "tar: link": (tarred([(member("a", tarfile.SYMTYPE, "/etc"), None)]), "neither a file nor a folder"),
    "tar: hard link": (tarred([("b", PHOTO), (member("a", tarfile.LNKTYPE, "b"), None)]), "neither"),
    "tar: device": (tarred([(member("a", tarfile.CHRTYPE), None)]), "neither a file nor a folder"),
    "tar: pipe": (tarred([(member("a", tarfile.FIFOTYPE), None)]), "neither a file nor a folder"),
    "tar: link below": (tarred([(member("a", tarfile.SYMTYPE, "/tmp"), None), ("a/outside.jpg", PHOTO)]), "neither"),
    "tar: twice": (tarred([("a.jpg", PHOTO), ("a.jpg", PHOTO)]), "twice"),
    "tar: a file and a folder": (tarred([("a", PHOTO), ("a/b.jpg", PHOTO)]), "twice"),
    "tar: bomb": (lambda: tarred([("a.jpg", bytes(archives.SPARE * 2))]), "photos have not"),
    "tar: long header": (long_header(), "header that is too long"),
    "tar: less than no bytes": (negative(), "less than no bytes"),
    "tar: less than no bytes by pax": (pax_size("-512"), "less than no bytes|damaged"),
    "gz: behind its end": (lambda: gzip.compress(tarred([("a.jpg", PHOTO)], "w") + bytes(80 << 20)), "behind its end"),
    "tar: cut in a file": (tarred([("a.jpg", PHOTO)], "w")[:700], "cut off"),
    "tar: cut between files": (tarred([("a.jpg", bytes(512)), ("b.jpg", PHOTO)], "w")[:1024], "end is missing"),
    "tar: damaged header": (tarred([("a.jpg", bytes(512))], "w")[:1024] + b"\xff" * 512 + bytes(99), "end is missing"),
    "gz: cut off": (tarred([("a.jpg", PHOTO)])[:-40], "cut off"),
    "no archive": (b"<html>Sign in</html>" * 100, "damaged"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_is_refused_and_nothing_lands_outside(tmp_path, name):
    data, reason = HOSTILE[name]
    archive = tmp_path / "a"
    archive.write_bytes(data() if callable(data) else data)
    with pytest.raises(DatasetError, match=reason) as raised:
        unpack(archive, tmp_path / "in" / "x")
    assert "\x1b" not in str(raised.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "in"}
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["x"]
    assert not any(path.is_symlink() for path in tmp_path.rglob("*"))


def test_plain_archives(tmp_path, monkeypatch):
    """Of every compression, with long names and folders of GNU and pax; not with more files than a dataset has."""
    files = {"d/train/a/é 1.png": image(1), "d/test/b/2.png": image(2), "d/empty.txt": b""}
    packed = {mode: tarred(files.items(), mode) for mode in ("w", "w:gz", "w:bz2", "w:xz")} | {"zip": zipped(files)}
    for mode, data in packed.items():
        done = []
        (tmp_path / "a").write_bytes(data)
        unpack(tmp_path / "a", tmp_path / mode, done.append)
        assert {p: (tmp_path / mode / p).read_bytes() for p in files} == files
        assert done[-1] == sum(map(len, files.values()))
    long = "/".join(["n" * 120] * 3) + ".png"
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tarred([(member("d", tarfile.DIRTYPE), None), (f"d/{long}", PHOTO)], "w:gz", format=kind)
        (tmp_path / "a").write_bytes(data)
        unpack(tmp_path / "a", tmp_path / str(kind))
        assert (tmp_path / str(kind) / "d" / long).read_bytes() == PHOTO
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    (tmp_path / "a").write_bytes(zipped({f"{n}.jpg": b"" for n in range(4)}))
    with pytest.raises(DatasetError, match="more than 3 files"):
        unpack(tmp_path / "a", tmp_path / "many")
