"""Every mode of Pillow's comes out as the RGB that it stands for: by bit depth, upright, and on white where nothing is."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin, features

from tosca_cache.datasets.decoding import (
    IMAGE_SUFFIXES,
    PUBLISHED,
    Decoding,
    more_suffixes,
    open_rgb,
    to_rgb,
)
from tosca_cache.errors import ImageError

OWN = Decoding()
AS_STORED = (PUBLISHED, Decoding(orientation="stored", background="none"))
RAMP = np.array([[0, 255, 256, 4095, 32768, 65535]], dtype=np.uint16)
GREY = [0, 0, 1, 15, 128, 255]  # RAMP >> 8


def rgb(image, decoding=OWN):
    """Pixels of a picture in memory, or of a file."""
    shown = to_rgb(image, decoding) if isinstance(image, Image.Image) else open_rgb(image, decoding)
    assert shown.mode == "RGB"
    return np.asarray(shown).tolist()


def grey(values):
    return [[[value] * 3 for value in row] for row in values]


def raw(mode, *pixels):
    """A picture one pixel high, from the bytes of its pixels."""
    return Image.frombytes(mode, (len(pixels), 1), bytes(np.array(pixels, np.uint8).ravel()))


def palette(mode, *pixels):
    image = raw(mode, *pixels)
    image.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    return image


# Mode -> a picture, the RGB it stands for, and a tolerance: the conversion of some rounds to 8 bits on the way.
MODES = {
    "1": (Image.fromarray(np.array([[False, True]])), [[0, 0, 0], [255, 255, 255]], 0),
    "L": (raw("L", 7, 200), [[7, 7, 7], [200, 200, 200]], 0),
    "RGB": (raw("RGB", (1, 2, 3), (4, 5, 6)), [[1, 2, 3], [4, 5, 6]], 0),
    "RGBX": (raw("RGBX", (1, 2, 3, 0), (4, 5, 6, 9)), [[1, 2, 3], [4, 5, 6]], 0),
    "LA": (raw("LA", (7, 255), (7, 0)), [[7, 7, 7], [255, 255, 255]], 0),
    "La": (raw("La", (7, 255), (0, 0)), [[7, 7, 7], [255, 255, 255]], 0),
    "RGBA": (raw("RGBA", (1, 2, 3, 255), (1, 2, 3, 0)), [[1, 2, 3], [255, 255, 255]], 0),
    "RGBa": (raw("RGBa", (1, 2, 3, 255), (0, 0, 0, 0)), [[1, 2, 3], [255, 255, 255]], 0),
    "P": (palette("P", 1, 2), [[10, 20, 30], [40, 50, 60]], 0),
    "PA": (palette("PA", (1, 255), (2, 0)), [[10, 20, 30], [255, 255, 255]], 0),
    "CMYK": (raw("CMYK", (0, 0, 0, 0), (255, 0, 0, 0)), [[255, 255, 255], [0, 255, 255]], 0),
    "HSV": (raw("HSV", (0, 255, 255), (85, 255, 128)), [[255, 0, 0], [0, 128, 0]], 0),
    "YCbCr": (raw("YCbCr", (76, 85, 255), (255, 128, 128)), [[254, 0, 0], [255, 255, 255]], 1),
    "LAB": (raw("LAB", (255, 0, 0), (138, 81, 70)), [[255, 255, 255], [255, 0, 0]], 6),  # white and red, of D50
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_8_bits(mode):
    image, expected, tolerance = MODES[mode]
    assert image.mode == mode and np.abs(np.array(rgb(image)) - [expected]).max() <= tolerance


def test_what_is_transparent_is_white_or_the_background(tmp_path):
    path = tmp_path / "x.png"
    raw("RGBA", (200, 100, 0, 255), (200, 100, 0, 128), (200, 100, 0, 0)).save(path)
    assert rgb(path) == [[[200, 100, 0], [227, 177, 127], [255, 255, 255]]]
    assert rgb(path, Decoding(background="#000000")) == [[[200, 100, 0], [100, 50, 0], [0, 0, 0]]]
    for as_stored in AS_STORED:  # what lies under transparent pixels
        assert rgb(path, as_stored) == [[[200, 100, 0]] * 3]
    for transparency in (2, b"\xff\xff\x00"):  # one colour, or an alpha for each
        palette("P", 1, 2).save(path, transparency=transparency)
        assert Image.open(path).mode == "P" and rgb(path) == [[[10, 20, 30], [255, 255, 255]]]
    for pixels, transparent, place in (  # a colour that stands for transparent
        (RAMP, 256, 2),
        (np.array([[3, 9]], np.uint8), 9, 1),
        (np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), (4, 5, 6), 1),
    ):
        Image.fromarray(pixels).save(path, transparency=transparent)
        on_white, on_red = (rgb(path, Decoding(background=b))[0] for b in ("#ffffff", "#ff0000"))
        assert [k for k, (a, b) in enumerate(zip(on_white, on_red, strict=True)) if a != b] == [place]
        assert on_white[place] == [255, 255, 255] and on_red[place] == [255, 0, 0]


def test_16_bits(tmp_path):
    for mode, order in (("I;16", "<u2"), ("I;16B", ">u2"), ("I;16L", "<u2"), ("I;16N", "=u2")):
        assert rgb(Image.frombytes(mode, (6, 1), RAMP.astype(order).tobytes())) == grey([GREY])
    for suffix in ("png", "tif", "pgm", *(["jp2"] if features.check("jpg_2000") else [])):
        Image.fromarray(RAMP).save(tmp_path / f"x.{suffix}")
        assert rgb(tmp_path / f"x.{suffix}") == grey([GREY])
        if suffix in ("png", "tif"):  # as published numbers were made: all above 255 is white
            assert rgb(tmp_path / f"x.{suffix}", PUBLISHED) == grey([[0, 255, 255, 255, 255, 255]])
    pixels = np.array([[[65535, 256, 0], [513, 514, 515]]], dtype=">u2")
    png(tmp_path / "x.png", pixels, transparent=(513, 514, 515))
    assert rgb(tmp_path / "x.png", Decoding(background="none")) == [[[255, 1, 0], [2, 2, 2]]]
    assert rgb(tmp_path / "x.png") == [[[255, 1, 0], [255, 255, 255]]]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def header(width, height, bits, kind):
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))


def png(path, pixels, *, transparent):
    """A PNG of 16 bits of RGB, which Pillow does not write."""
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))
    rest = chunk(b"tRNS", struct.pack(">HHH", *transparent)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    path.write_bytes(header(pixels.shape[1], pixels.shape[0], 16, 2) + rest)


def tiff(path, values, bits, *, photometric=1, sample_format=1):
    """A TIFF of one strip, as no version of Pillow would write it."""
    data = values.tobytes()
    tags = {256: len(data) * 8 // bits, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 1}
    tags |= {279: len(data), 339: sample_format}
    padded = data + b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(padded))
    path.write_bytes(head + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4)
    return path


def test_other_depths(tmp_path):
    path, twelve = tmp_path / "x.tif", bytes((0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10))  # 0, 2048, 4095, 16 of 12 bits each
    for values, kind, bits, how, expected in (
        ([0, 4095, 32768, 65535], np.uint16, 16, {"photometric": 0}, [255, 240, 127, 0]),  # where white is zero
        (list(twelve), np.uint8, 12, {}, [0, 128, 255, 1]),
        ([0, 0.5, 1], np.float32, 32, {"photometric": 0, "sample_format": 3}, [255, 127, 0]),
        ([0, 0.2, 0.5, 1], np.float32, 32, {"sample_format": 3}, [0, 51, 128, 255]),
    ):
        assert rgb(tiff(path, np.array(values, kind), bits, **how)) == grey([expected])
    for values, kind, bits, sample_format, said in (  # whose white is not known
        ([-0.5, 1], np.float32, 32, 3, "from -0.5 to 1"),
        ([0, 255], np.float32, 32, 3, "from 0 to 255"),
        ([0, np.nan], np.float32, 32, 3, "no numbers"),
        ([-3, 70000], np.int32, 32, 2, "integers from -3 to 70,000"),
        ([-2, 9], np.int16, 16, 2, "integers from -2 to 9"),
        ([-2, 9], np.int8, 8, 2, "signed bytes"),
    ):
        with pytest.raises(ImageError, match=said):
            rgb(tiff(path, np.array(values, kind), bits, sample_format=sample_format))


PIXELS = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


def turned(orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return exif


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright_as_pillow_turns_them(tmp_path, orientation, suffix):
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(PIXELS).save(path, exif=turned(orientation))
    with Image.open(path) as image:
        as_stored, upright = (np.asarray(shown).tolist() for shown in (image, ImageOps.exif_transpose(image)))
    assert rgb(path) == upright and (upright != as_stored) == (orientation > 1 and suffix != "tif")
    for decoding in AS_STORED:  # but for TIFF, which Pillow turns by itself
        assert rgb(path, decoding) == as_stored


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_what_says_nothing_about_the_picture(tmp_path):
    """Damaged EXIF data, orientations that there are not, later frames of an animation, and a long note."""
    for exif in (b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense" * 9, *map(turned, (0, 9, 255))):
        Image.fromarray(PIXELS).save(tmp_path / "x.png", exif=exif)
        assert rgb(tmp_path / "x.png") == PIXELS.tolist()
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("#ff0000", "#0000ff"))
    for suffix in ("gif", "png", "tif"):
        first.save(tmp_path / f"x.{suffix}", save_all=True, append_images=[second])
        assert rgb(tmp_path / f"x.{suffix}") == [[[255, 0, 0]] * 4] * 4
    note = PngImagePlugin.PngInfo()
    note.add_text("how it was drawn", "A" * 5_000_000, zip=True)
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=note)
    assert rgb(tmp_path / "a.png") == [[[1, 2, 3], [1, 2, 3]]]


def test_suffixes_are_those_of_image_folder_and_more_of_ones_own(tmp_path):
    assert PUBLISHED.suffixes == IMAGE_SUFFIXES < OWN.suffixes
    for suffix, feature in (("avif", "avif"), ("jp2", "jpg_2000"), ("gif", None), ("jfif", None)):
        readable = feature is None or features.check(feature)
        assert (f".{suffix}" in more_suffixes()) == readable
        if readable:  # a single colour, which lossy formats keep to within what 8-bit YCbCr can say
            Image.new("RGB", (16, 16), (60, 120, 180)).save(tmp_path / f"x.{suffix}")
            assert np.abs(np.array(rgb(tmp_path / f"x.{suffix}")) - [60, 120, 180]).max() <= 3


def test_limits_are_of_the_header_alone(tmp_path, monkeypatch):
    """Nothing is decoded to find that out, Pillow's own limit plays no part, and too little memory is no bad image."""
    path = tmp_path / "x.png"
    Image.new("L", (100, 20)).save(path)
    for data, most, said in (
        (path.read_bytes(), 1999, r"100 x 20 pixels, more than 1,999; --max-pixels"),
        (header(4000, 4000, 1, 0) + bytes(4) + b"IDAT" + bytes(4), 100, "more than 100"),
        (header(1, 10**8, 8, 0) + bytes(4) + b"IDAT" + bytes(4), 10**9, "pixels, more than 1,048,576 on a side"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", 99, "a program that draws"),
    ):
        path.write_bytes(data)
        with pytest.raises(ImageError, match=said) as raised:
            open_rgb(path, Decoding(max_pixels=most))
        assert raised.value.where == str(path)
    Image.new("L", (100, 20)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_rgb(path, Decoding(max_pixels=2000)).size == (100, 20)

    def out_of_memory(*arguments):
        raise MemoryError

    monkeypatch.setattr("tosca_cache.datasets.decoding.to_rgb", out_of_memory)
    with pytest.raises(Exception, match="memory is not enough") as raised:
        open_rgb(path)
    assert not isinstance(raised.value, ImageError)  # which --on-error skip would leave out


@pytest.mark.filterwarnings("ignore")  # of Pillow's, about what is damaged
def test_damaged_files_are_bad_images_and_nothing_else(tmp_path):
    """A small picture in every format that is read, with bytes overwritten, removed and put in."""
    random, path, bad = np.random.default_rng(0), tmp_path / "x", 0
    formats = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA"]
    formats += [name for name, feature in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if features.check(feature)]
    for name in formats:
        data = io.BytesIO()
        Image.fromarray(PIXELS).save(data, name, exif=turned(6))
        for _ in range(40):
            damaged = bytearray(data.getvalue())
            for place in random.integers(len(damaged), size=3):
                damaged[place : place + int(random.integers(1, 9))] = random.bytes(int(random.integers(9)))
            path.write_bytes(damaged)
            try:
                assert open_rgb(path, OWN).mode == "RGB"
            except ImageError:
                bad += 1
    assert bad > 40
