"""Archives that nobody should unpack: what is refused, and that nothing of it lands outside."""

import gzip
import struct
import tarfile
import zipfile

import pytest
from archive_help import member, tarred, tree, zipped
from photos import photo

from tosca_cache.datasets import archives
from tosca_cache.datasets.archives import unpack
from tosca_cache.errors import DatasetError

PHOTO = photo("grey", 0)
ONE = {"a.jpg": PHOTO}


def zip_link():
    info = zipfile.ZipInfo("train/a/link.jpg")
    info.external_attr = 0o120777 << 16
    return zipped({info: "/etc/passwd"})


def patched(data, local, central, value):
    """A zip with other bytes at an offset of the local and of the central header of its file."""
    data = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
        place = data.index(signature) + offset
        data[place : place + len(value)] = value
    return bytes(data)


def zip_bomb():
    return zipped({"a.jpg": bytes(archives.SPARE + (archives.SPARE >> 1))}, zipfile.ZIP_DEFLATED)


def long_header():
    """A name that says it has a gigabyte."""
    head = member("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    head.size = 1 << 30
    return gzip.compress(head.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 22))


def negative():
    """A file whose size leads back to its own header."""
    head = bytearray(member("0.png").tobuf(tarfile.GNU_FORMAT))
    head[124:136] = b"\xff" * 8 + (-512 & 0xFFFFFFFF).to_bytes(4, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head) + bytes(1024)


def pax_size(size):
    """A file whose size stands in an extended header."""
    info = member("a.jpg")
    info.pax_headers = {"size": size}
    return tarred([(info, PHOTO), ("b.jpg", PHOTO)], "w", format=tarfile.PAX_FORMAT)


OTHERS = {"symbolic link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}
OTHERS |= {"device": tarfile.CHRTYPE, "pipe": tarfile.FIFOTYPE}
HOSTILE = {
    "zip: above": (zipped({"a/b/../../../outside.jpg": PHOTO}), "outside"),
    "zip: control characters": (zipped({"a/\x1b[2J.jpg": PHOTO}), "control"),
    "zip: link": (zip_link(), "neither a file nor a folder"),
    "zip: bomb": (zip_bomb, "photos have not"),
    "zip: has more bytes than it says": (lambda: patched(zip_bomb(), 22, 24, struct.pack("<I", 1000)), "damaged"),
    "zip: encrypted": (patched(zipped(ONE), 6, 8, b"\1\0"), "encrypted"),
    "tar: absolute": (tarred([("/tmp/outside.jpg", PHOTO)]), "outside"),
    **{
        f"tar: {name}": (tarred([("b", PHOTO), (member("a", kind, "b"), None)]), "neither a file nor a folder")
        for name, kind in OTHERS.items()
    },
    "tar: link below": (tarred([(member("a", tarfile.SYMTYPE, "/tmp"), None), ("a/outside.jpg", PHOTO)]), "neither"),
    "tar: twice": (tarred([("a.jpg", PHOTO), ("a.jpg", PHOTO)]), "twice"),
    "tar: a file and a folder": (tarred([("a", PHOTO), ("a/b.jpg", PHOTO)]), "twice"),
    "tar: bomb": (lambda: tarred([("a.jpg", bytes(archives.SPARE * 2))]), "photos have not"),
    "tar: long header": (long_header(), "header that is too long"),
    "tar: less than no bytes": (negative(), "less than no bytes"),
    "tar: less than no bytes by pax": (pax_size("-512"), "less than no bytes|damaged"),
    "gz: behind its end": (lambda: gzip.compress(tarred(ONE.items(), "w") + bytes(80 << 20)), "behind its end"),
    "tar: cut in a file": (tarred(ONE.items(), "w")[:700], "cut off"),
    "tar: cut between files": (tarred([("a.jpg", bytes(512)), ("b.jpg", PHOTO)], "w")[:1024], "end is missing"),
    "tar: damaged header": (tarred([("a.jpg", bytes(512))], "w")[:1024] + b"\xff" * 512 + bytes(99), "end is missing"),
    "gz: cut off": (tarred(ONE.items())[:-40], "cut off"),
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


def test_archives_of_every_compression_with_long_names_but_not_with_more_files_than_a_dataset_has(
    tmp_path, monkeypatch
):
    long = "/".join(["n" * 120] * 3) + ".png"
    files = tree(train=1, test=1) | {"d/é 1.png": PHOTO, "d/empty.txt": b"", f"d/{long}": PHOTO}
    members = [(member("d", tarfile.DIRTYPE), None), *files.items()]
    packed = [tarred(members, mode, format=tarfile.PAX_FORMAT) for mode in ("w", "w:gz", "w:bz2", "w:xz")]
    for number, data in enumerate((*packed, tarred(members, format=tarfile.GNU_FORMAT), zipped(files))):
        done, folder = [], tmp_path / str(number)
        (tmp_path / "a").write_bytes(data)
        unpack(tmp_path / "a", folder, done.append)
        assert {p: (folder / p).read_bytes() for p in files} == files and done[-1] == sum(map(len, files.values()))
    monkeypatch.setattr(archives, "MOST_FILES", 3)
    with pytest.raises(DatasetError, match="more than 3 files"):
        unpack(tmp_path / "a", tmp_path / "many")
