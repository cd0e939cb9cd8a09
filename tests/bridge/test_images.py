"""Every kind of image file that people have comes out as what an upright, 8-bit RGB picture of it is."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from ppkd.bridge import images
from ppkd.bridge.images import ENDINGS, BadImage, decode, fault, picture


@pytest.fixture(scope="module")
def photo():
    """A smooth picture of 30 x 20, so that compression changes little of it."""
    rough = np.random.RandomState(0).randint(0, 255, (3, 4, 3), "uint8")
    return Image.fromarray(cv2.resize(rough, (30, 20), interpolation=cv2.INTER_LINEAR))


def saved(path, image, **options):
    image.save(path, **options)
    return path


def turned(tag, **options):
    """A file with turned pixels and the orientation that turns them back."""
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 5: "TRANSPOSE", 6: "ROTATE_90", 8: "ROTATE_270"}[tag]
    exif = Image.Exif()
    exif[0x0112] = tag
    return lambda image, path: saved(path, image.transpose(Image.Transpose[back]), exif=exif, **options)


JPEG = {"format": "JPEG", "quality": 100, "subsampling": 0}
FILES = {
    "jpg": lambda image, path: saved(path, image, **JPEG),
    "mpo": lambda image, path: saved(path, image, format="MPO", quality=100, save_all=True, append_images=[image]),
    "flipped": turned(2, **JPEG),
    "upside down": turned(3, **JPEG),
    "transposed": turned(5, **JPEG),
    "on its side": turned(6, **JPEG),
    "on the other": turned(8, **JPEG),
    "png on its side": turned(6, format="PNG"),
    "bmp": lambda image, path: saved(path, image, format="BMP"),
    "webp": lambda image, path: saved(path, image, format="WEBP", lossless=True),
    "webp on its side": turned(6, format="WEBP", lossless=True),
    "webp upside down": turned(3, format="WEBP", lossless=True),
    "webp film": lambda image, path: saved(
        path, image, format="WEBP", lossless=True, save_all=True, append_images=[image.rotate(180)]
    ),
    "tif": lambda image, path: saved(path, image, format="TIFF", compression="tiff_lzw"),
    "gif": lambda image, path: saved(path, image.convert("P", palette=Image.Palette.ADAPTIVE), format="GIF"),
    "film": lambda image, path: saved(path, image, format="GIF", save_all=True, append_images=[image.rotate(180)]),
    "palette": lambda image, path: saved(path, image.convert("P", palette=Image.Palette.ADAPTIVE), format="PNG"),
    "alpha": lambda image, path: saved(path, image.convert("RGBA"), format="PNG"),
    "cmyk": lambda image, path: saved(path, image.convert("CMYK"), **JPEG),
    "16 bits": lambda image, path: path.write_bytes(
        cv2.imencode(".png", np.asarray(image)[:, :, ::-1].astype("uint16") * 257)[1]
    ),
}
GREY = {
    "grey": lambda image, path: saved(path, image.convert("L"), format="PNG"),
    "grey and alpha": lambda image, path: saved(path, image.convert("LA"), format="PNG"),
    "grey jpg": lambda image, path: saved(path, image.convert("L"), **JPEG),
    "16 bits of grey": lambda image, path: path.write_bytes(
        cv2.imencode(".tif", np.asarray(image.convert("L")).astype("uint16") * 257)[1]
    ),
}


@pytest.mark.parametrize("kind", [*FILES, *GREY])
def test_a_kind_of_file(kind, photo, tmp_path):
    path = tmp_path / "x"
    (FILES | GREY)[kind](photo, path)
    wanted = np.asarray(photo.convert("L").convert("RGB") if kind in GREY else photo).astype(int)
    found = decode(path)
    assert found.dtype == np.uint8 and found.shape == (20, 30, 3)
    assert np.abs(found[:, :, ::-1] - wanted).mean() < 6
    assert (np.asarray(picture(path)) == found[:, :, ::-1]).all(), "what is drawn on is what is detected on"


def png(width, height, data=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def in_format(image, name):
    file = io.BytesIO()
    image.save(file, name)
    return file.getvalue()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_what_is_cut_off_is_told(name, share, tmp_path):
    noise = Image.fromarray(np.random.RandomState(1).randint(0, 255, (40, 50, 3), "uint8"))
    data, path = in_format(noise, name), tmp_path / "x"
    path.write_bytes(data)
    assert fault(path) is None
    path.write_bytes(data[: int(share * len(data))])
    assert fault(path), "half of it would be grey"


def test_a_progressive_jpeg_that_is_cut_off(tmp_path):
    noise = Image.fromarray(np.random.RandomState(1).randint(0, 255, (40, 50, 3), "uint8"))
    noise.save(tmp_path / "x.jpg", progressive=True)
    data = (tmp_path / "x.jpg").read_bytes()
    assert fault(tmp_path / "x.jpg") is None
    (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
    assert fault(tmp_path / "x.jpg") == "truncated"


@pytest.mark.parametrize("size", [(60000, 60000), (20000, 9000)])
def test_a_bomb_is_not_unpacked(size, tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    path.write_bytes(png(*size, bytes(1000)))
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(BadImage, match=r"\d+ bytes that claim \d+ million pixels \(a decompression bomb\)"):
        decode(path)


def test_every_ending_is_one_that_is_read(photo, tmp_path):
    for ending in ENDINGS:
        path = tmp_path / f"x{ending}"
        photo.save(path)
        assert decode(path).shape == (20, 30, 3)


@pytest.mark.parametrize("name", ["x.tif", "x.hdr", "x.jpg", "x.pfm"])
@pytest.mark.parametrize("high", [1.0, 255.0])
def test_numbers_whose_range_nobody_knows_are_refused(name, high, photo, tmp_path):
    """OpenCV cuts them off at 255: such a photograph was white, and nothing said so."""
    values = np.asarray(photo).astype("float32") / 255 * high
    path = str(tmp_path / name)
    content = cv2.imencode(".tif" if name == "x.jpg" else path, values)[1]
    content.tofile(path)
    with pytest.raises(BadImage, match="values of type float32, whose range nobody knows"):
        decode(path)
    assert "whose range nobody knows" in fault(path)


def test_tiffs_of_8_and_16_bits_are_read(photo, tmp_path):
    for values in (np.asarray(photo), np.asarray(photo).astype("uint16") * 257):
        path = str(tmp_path / "x.tif")
        cv2.imwrite(path, values[:, :, ::-1])
        assert np.abs(decode(path)[:, :, ::-1].astype(int) - np.asarray(photo)).max() <= 1


@pytest.mark.parametrize(
    "content, told",
    [(b"\0\0\0\x18ftypheic" + b"\0" * 90, "HEIC"), (b"\0\0\0\x1cftypavif" + b"\0" * 90, "AVIF"),
     (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b" \n<!DOCTYPE html>", "HTML"),
     (b"<svg>", "SVG")],
)  # fmt: skip
def test_what_often_lies_in_an_images_place_is_called_by_its_name(content, told, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert told in fault(str(tmp_path / "x.jpg"))
