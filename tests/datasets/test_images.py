"""Every mode of Pillow's comes out as the RGB that it stands for: by bit depth, upright, and on white where nothing is."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from tosca_cache.datasets.decoding import IMAGE_SUFFIXES, PUBLISHED, Decoding, more_suffixes, parse_background
from tosca_cache.datasets.images import open_rgb, to_rgb
from tosca_cache.errors import ImageError, UsageError

OWN = Decoding()
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


# Mode -> a picture and the RGB it stands for, exact in integers.
EXACT = {
    "1": (Image.fromarray(np.array([[False, True]])), [[0, 0, 0], [255, 255, 255]]),
    "L": (raw("L", 7, 200), [[7, 7, 7], [200, 200, 200]]),
    "RGB": (raw("RGB", (1, 2, 3), (4, 5, 6)), [[1, 2, 3], [4, 5, 6]]),
    "RGBX": (raw("RGBX", (1, 2, 3, 0), (4, 5, 6, 9)), [[1, 2, 3], [4, 5, 6]]),
    "LA": (raw("LA", (7, 255), (7, 0)), [[7, 7, 7], [255, 255, 255]]),
    "La": (raw("La", (7, 255), (0, 0)), [[7, 7, 7], [255, 255, 255]]),
    "RGBA": (raw("RGBA", (1, 2, 3, 255), (1, 2, 3, 0)), [[1, 2, 3], [255, 255, 255]]),
    "RGBa": (raw("RGBa", (1, 2, 3, 255), (0, 0, 0, 0)), [[1, 2, 3], [255, 255, 255]]),
    "CMYK": (raw("CMYK", (0, 0, 0, 0), (255, 0, 0, 0)), [[255, 255, 255], [0, 255, 255]]),
    "HSV": (raw("HSV", (0, 255, 255), (85, 255, 128)), [[255, 0, 0], [0, 128, 0]]),
}
# Mode -> the same, with a tolerance: their conversion rounds to 8 bits on the way.
ROUNDED = {
    "YCbCr": (raw("YCbCr", (76, 85, 255), (255, 128, 128)), [[254, 0, 0], [255, 255, 255]], 1),
    "LAB": (raw("LAB", (255, 0, 0), (138, 81, 70)), [[255, 255, 255], [255, 0, 0]], 6),  # white and red, of D50
}


@pytest.mark.parametrize("mode", [*EXACT, *ROUNDED])
def test_modes_of_8_bits(mode):
    image, expected, tolerance = ROUNDED[mode] if mode in ROUNDED else (*EXACT[mode], 0)
    assert image.mode == mode and np.abs(np.array(rgb(image)) - [expected]).max() <= tolerance


def palette(mode="P"):
    image = raw(mode, *((1, 2) if mode == "P" else ((1, 255), (2, 0))))
    image.putpalette([0, 0, 0, 10, 20, 30, 40, 50, 60])
    return image


def test_palettes(tmp_path):
    assert rgb(palette()) == [[[10, 20, 30], [40, 50, 60]]]
    assert rgb(palette("PA")) == [[[10, 20, 30], [255, 255, 255]]]
    for number, transparency in enumerate((2, b"\xff\xff\x00")):  # one colour, or an alpha for each
        palette().save(tmp_path / f"{number}.png", transparency=transparency)
        assert Image.open(tmp_path / f"{number}.png").mode == "P"
        assert rgb(tmp_path / f"{number}.png") == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L", "I;16N"])
def test_16_bits_in_memory(mode):
    order = ">u2" if mode == "I;16B" else "=u2" if mode == "I;16N" else "<u2"
    assert rgb(Image.frombytes(mode, (6, 1), RAMP.astype(order).tobytes())) == grey([GREY])


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm", "jp2"])
def test_16_bits_in_a_file(tmp_path, suffix):
    if suffix == "jp2" and not features.check("jpg_2000"):
        pytest.skip("this Pillow has no JPEG 2000")
    Image.fromarray(RAMP).save(tmp_path / f"x.{suffix}")
    assert rgb(tmp_path / f"x.{suffix}") == grey([GREY])
    # As it was before there was a choice, and as published numbers were made: all above 255 is white.
    if suffix in ("png", "tif"):
        assert rgb(tmp_path / f"x.{suffix}", PUBLISHED) == grey([[0, 255, 255, 255, 255, 255]])


def tiff(path, values, bits, *, photometric=1, sample_format=1):
    """A TIFF of one strip, as no version of Pillow would write it."""
    data = values if isinstance(values, bytes) else values.tobytes()
    width = len(data) * 8 // bits
    tags = {
        256: width,
        257: 1,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: 1,
        279: len(data),
        339: sample_format,
    }
    padded = data + b"\0" * (len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    path.write_bytes(
        struct.pack("<2sHI", b"II", 42, 8 + len(padded)) + padded + struct.pack("<H", len(tags)) + entries + b"\0" * 4
    )
    return path


def test_tiff_of_other_depths(tmp_path):
    values = np.array([[0, 4095, 32768, 65535]], np.uint16)
    assert rgb(tiff(tmp_path / "white-is-zero.tif", values, 16, photometric=0)) == grey([[255, 240, 127, 0]])
    twelve = bytes((0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10))  # 0, 2048, 4095, 16 in 12 bits each
    assert rgb(tiff(tmp_path / "twelve.tif", twelve, 12)) == grey([[0, 128, 255, 1]])
    ones = np.array([[0.0, 0.5, 1.0]], np.float32)
    assert rgb(tiff(tmp_path / "float.tif", ones, 32, photometric=0, sample_format=3)) == grey([[255, 127, 0]])


def test_16_bits_of_colour(tmp_path):
    pixels = np.array([[[65535, 256, 0], [513, 514, 515]]], dtype=">u2")
    png(tmp_path / "x.png", pixels, transparent=(513, 514, 515))
    assert rgb(tmp_path / "x.png", Decoding(background="none")) == [[[255, 1, 0], [2, 2, 2]]]
    assert rgb(tmp_path / "x.png") == [[[255, 1, 0], [255, 255, 255]]]


def png(path, pixels, *, transparent):
    """A PNG of 16 bits of RGB, which Pillow does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
        + chunk(b"tRNS", struct.pack(">HHH", *transparent))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("image", "transparent"),
    [
        (Image.fromarray(RAMP), 256),
        (Image.fromarray(np.array([[3, 9]], np.uint8)), 9),
        (Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)), (4, 5, 6)),
    ],
    ids=["I;16", "L", "RGB"],
)
def test_a_colour_that_stands_for_transparent(tmp_path, image, transparent):
    image.save(tmp_path / "x.png", transparency=transparent)
    on_white, on_red = (rgb(tmp_path / "x.png", Decoding(background=b))[0] for b in ("#ffffff", "#ff0000"))
    differing = [place for place, (a, b) in enumerate(zip(on_white, on_red, strict=True)) if a != b]
    assert differing == [2 if image.mode == "I;16" else 1]
    assert on_white[differing[0]] == [255, 255, 255] and on_red[differing[0]] == [255, 0, 0]


def test_floats(tmp_path):
    def save(*values):
        Image.fromarray(np.array([values], np.float32)).save(tmp_path / "x.tif")
        return tmp_path / "x.tif"

    assert rgb(save(0, 0.2, 0.5, 1)) == grey([[0, 51, 128, 255]])
    for values, said in (((-0.5, 1), "from -0.5 to 1"), ((0, 255), "from 0 to 255"), ((0, float("nan")), "no numbers")):
        with pytest.raises(ImageError, match=said):
            rgb(save(*values))


def test_integers_whose_white_is_not_known(tmp_path):
    Image.fromarray(np.array([[-3, 70000]], np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(ImageError, match="integers from -3 to 70,000"):
        rgb(tmp_path / "x.tif")
    with pytest.raises(ImageError, match="integers from -2 to 9"):
        rgb(tiff(tmp_path / "signed.tif", np.array([[-2, 9]], np.int16), 16, sample_format=2))
    with pytest.raises(ImageError, match="signed bytes"):
        rgb(tiff(tmp_path / "bytes.tif", np.array([[-2, 9]], np.int8), 8, sample_format=2))


def test_what_lies_under_transparent_pixels(tmp_path):
    raw("RGBA", (200, 100, 0, 255), (200, 100, 0, 128), (200, 100, 0, 0)).save(tmp_path / "x.png")
    assert rgb(tmp_path / "x.png") == [[[200, 100, 0], [227, 177, 127], [255, 255, 255]]]
    assert rgb(tmp_path / "x.png", Decoding(background="#000000")) == [[[200, 100, 0], [100, 50, 0], [0, 0, 0]]]
    for shown in (Decoding(background="none"), PUBLISHED):
        assert rgb(tmp_path / "x.png", shown) == [[[200, 100, 0]] * 3]


def test_backgrounds():
    assert [parse_background(text) for text in ("white", "#abc", "#102030", "none")] == [
        "#ffffff",
        "#aabbcc",
        "#102030",
        "none",
    ]
    for text in ("", "pinkish", "#12345", "#11223344", "0"):
        with pytest.raises(UsageError, match="background"):
            parse_background(text)


CORNERS = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
# How the picture above is stored if it was taken with that orientation: what has to be undone.
STORED = {
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.transpose(1, 0, 2),
    6: np.rot90(CORNERS),
    7: CORNERS[::-1, ::-1].transpose(1, 0, 2),
    8: np.rot90(CORNERS, -1),
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize("orientation", STORED)
def test_photos_are_turned_upright(tmp_path, orientation, suffix):
    # Blocks of 16 pixels, since JPEG blurs what is smaller; of a single colour each, which it keeps to within 2.
    stored = np.ascontiguousarray(STORED[orientation]).repeat(16, 0).repeat(16, 1)
    exif = Image.Exif()
    exif[274] = orientation
    how = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(stored).save(tmp_path / f"x.{suffix}", exif=exif, **how)
    tolerance = 2 if suffix == "jpg" else 0
    found = np.array(rgb(tmp_path / f"x.{suffix}"), dtype=int)[8::16, 8::16]
    assert np.abs(found - CORNERS).max() <= tolerance
    if suffix != "tif":  # which Pillow turns by itself
        for as_stored in (Decoding(orientation="stored"), PUBLISHED):
            found = np.array(rgb(tmp_path / f"x.{suffix}", as_stored), dtype=int)
            assert np.abs(found - stored).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense" * 9, 0, 9, 255])
def test_damaged_exif_data_and_orientations_that_there_are_not_say_nothing(tmp_path, exif):
    if isinstance(exif, int):
        orientation, exif = exif, Image.Exif()
        exif[274] = orientation
    Image.fromarray(CORNERS).save(tmp_path / "x.png", exif=exif)
    assert rgb(tmp_path / "x.png") == CORNERS.tolist()


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("#ff0000", "#0000ff")]
    for suffix in ("gif", "png", "tif"):
        frames[0].save(tmp_path / f"x.{suffix}", save_all=True, append_images=frames[1:])
        assert rgb(tmp_path / f"x.{suffix}") == [[[255, 0, 0]] * 4] * 4


@pytest.mark.parametrize("suffix", ["avif", "jp2", "gif", "jfif"])
def test_more_suffixes(tmp_path, suffix):
    feature = {"avif": "avif", "jp2": "jpg_2000"}.get(suffix)
    readable = feature is None or features.check(feature)
    assert (f".{suffix}" in more_suffixes()) == readable
    if readable:
        Image.new("RGB", (16, 16), (60, 120, 180)).save(tmp_path / f"x.{suffix}")
        # A single colour, which lossy formats keep to within what 8-bit YCbCr can say.
        assert np.abs(np.array(rgb(tmp_path / f"x.{suffix}")) - [60, 120, 180]).max() <= 3


def test_as_published_only_the_suffixes_of_image_folder_are_read():
    assert PUBLISHED.suffixes == IMAGE_SUFFIXES < OWN.suffixes


class TestLimits:
    def test_pixels(self, tmp_path):
        Image.new("1", (100, 20)).save(tmp_path / "x.png")
        assert open_rgb(tmp_path / "x.png", Decoding(max_pixels=2000)).size == (100, 20)
        with pytest.raises(ImageError, match=r"100 x 20 pixels, more than 1,999; --max-pixels") as raised:
            open_rgb(tmp_path / "x.png", Decoding(max_pixels=1999))
        assert raised.value.where == str(tmp_path / "x.png")

    def test_sides(self, tmp_path):
        # Only the header of a PNG: nothing else is read.
        header = b"IHDR" + struct.pack(">IIBBBBB", 1, 100_000_000, 8, 0, 0, 0, 0)
        chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT\0\0\0\0")
        with pytest.raises(ImageError, match="1 x 100,000,000 pixels, more than 1,048,576 on a side"):
            open_rgb(tmp_path / "x.png", OWN)

    def test_nothing_is_decoded_to_find_that_out_and_pillows_own_limit_plays_no_part(self, tmp_path, monkeypatch):
        Image.new("1", (4000, 4000)).save(tmp_path / "x.png")
        (tmp_path / "x.png").write_bytes((tmp_path / "x.png").read_bytes()[:200])
        with pytest.raises(ImageError, match="more than 100"):
            open_rgb(tmp_path / "x.png", Decoding(max_pixels=100))
        Image.new("L", (64, 64)).save(tmp_path / "x.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert open_rgb(tmp_path / "x.png", Decoding(max_pixels=64 * 64)).size == (64, 64)

    def test_too_little_memory_is_no_bad_image(self, tmp_path, monkeypatch):
        def out_of_memory(*arguments):
            raise MemoryError

        Image.new("L", (4, 4)).save(tmp_path / "x.png")
        monkeypatch.setattr("tosca_cache.datasets.images.to_rgb", out_of_memory)
        with pytest.raises(Exception, match="memory is not enough") as raised:
            open_rgb(tmp_path / "x.png")
        assert not isinstance(raised.value, ImageError)  # which --on-error skip would leave out


def some_files():
    """A small picture in every format that is read, as bytes."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    formats = ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "TGA"]
    formats += [name for name, feature in (("AVIF", "avif"), ("JPEG2000", "jpg_2000")) if features.check(feature)]
    for name in formats:
        data = io.BytesIO()
        image.save(data, name, exif=exif)
        yield data.getvalue()


@pytest.mark.filterwarnings("ignore")  # of Pillow's, about what is damaged
def test_damaged_files_are_bad_images_and_nothing_else(tmp_path):
    random, path, bad = np.random.default_rng(0), tmp_path / "x", 0
    for data in some_files():
        for _ in range(40):
            damaged = bytearray(data)
            for place in random.integers(len(data), size=3):
                damaged[place : place + int(random.integers(1, 9))] = random.bytes(int(random.integers(9)))
            path.write_bytes(damaged)
            try:
                assert open_rgb(path, OWN).mode == "RGB"
            except ImageError:
                bad += 1
    assert bad > 40


def test_programs_are_not_run(tmp_path):
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match="a program that draws"):
        open_rgb(tmp_path / "x.png")


def test_a_long_note_in_a_picture_is_no_reason_to_refuse_it(tmp_path):
    note = PngImagePlugin.PngInfo()
    note.add_text("how it was drawn", "A" * 5_000_000, zip=True)
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "a.png", pnginfo=note)
    assert rgb(tmp_path / "a.png") == [[[1, 2, 3], [1, 2, 3]]]
