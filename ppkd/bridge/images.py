"""The one way in which image files are read: by training, evaluation, inference, the doctor, and for pictures."""

import io
import os
import re
import warnings

import cv2
import numpy as np
from PIL import Image, ImageOps

from ppkd.files.in_place import in_place_of
from ppkd.files.regular import open_file

# What a folder of images is looked through for. OpenCV knows all but films, of which the first frame is taken.
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
_JPEG, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG, _PNG_END = b"\x89PNG", b"IEND"
_GIF, _GIF_END = b"GIF8", b";"
_WEBP, _WEBP_FLAGS, _TURNED_OR_FILM = b"WEBPVP8X", 20, 0x08 | 0x02
# Formats that may hold numbers of which nobody knows what is black and white: TIFF, Radiance's, OpenEXR, PFM.
_ANY_NUMBERS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"#?", b"\x76\x2f\x31\x01", b"PF", b"Pf")
_PHONES = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
# A few bytes that claim so many pixels are made to fill the memory: photographs have a byte for some ten pixels, blank
# ones for a few hundred.
_MANY, _PIXELS_PER_BYTE = 100e6, 200


class BadImage(Exception):
    """An image cannot be read or transformed.

    Attributes:
        file: its path.
        reason: a few words.
    """

    def __init__(self, file, reason):
        super().__init__(f"{file}: {reason}")
        self.file, self.reason = file, reason


def read(path):
    """The bytes of an image file, as it is.

    Raises:
        BadImage: it cannot be read, is empty, truncated, or claims many more pixels than its bytes can stand for.
    """
    try:
        with open_file(path, "rb") as file:
            data = file.read()
    except (OSError, ValueError) as error:
        if not os.path.exists(path):  # a name that no file can have, as well
            raise BadImage(path, "missing") from None
        raise BadImage(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not data:
        raise BadImage(path, "empty file")
    if not _is_whole(data):
        raise BadImage(path, "truncated")
    _, _, pixels = header(data) if _may_be_huge(data) else ("", "", 0)
    if pixels > max(_MANY, _PIXELS_PER_BYTE * len(data)):
        raise BadImage(path, f"{len(data)} bytes that claim {pixels / 1e6:.0f} million pixels (a decompression bomb)")
    return data


def decodable(path):
    """The bytes of an image file, such as OpenCV can decode: a film's first frame, and a WebP that has an orientation,
    which OpenCV does not look for there, in another format.

    Raises:
        BadImage: as `read`.
    """
    data = read(path)
    if data.startswith(_ANY_NUMBERS):
        _check_numbers(path, data)
    by_pillow = data.startswith(_GIF) or (data[8:16] == _WEBP and data[_WEBP_FLAGS] & _TURNED_OR_FILM)
    return _first_frame(path, data) if by_pillow else data


def _check_numbers(path, data):
    """Refuse values of 32 bits, which OpenCV would cut off at 255, white, whatever their range is."""
    try:
        values = cv2.imdecode(np.frombuffer(data, "uint8"), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError):
        return  # decoding tells what is wrong
    if values is not None and values.dtype not in ("uint8", "uint16"):
        raise BadImage(path, f"values of type {values.dtype}, whose range nobody knows: write 8 or 16 bits a channel")


def _may_be_huge(data):
    """Whether the header is worth the time of a look."""
    if data.startswith(_PNG):
        return int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big") > _MANY
    return not data.startswith(_JPEG) or len(data) > _MANY / 512  # a JPEG has at least a bit for 64 pixels


def header(data):
    """Mode, format and number of pixels as Pillow sees them; empty where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                return image.mode, image.format, image.size[0] * image.size[1]
    except Image.DecompressionBombError as error:  # only its text has the number
        return "", "", int(re.search(r"\d+", str(error))[0])
    except Exception:  # of the many that broken files raise in Pillow; OpenCV's word counts
        return "", "", 0


def _is_whole(data):
    """Whether a JPEG, PNG or GIF reaches its end. Inside of a JPEG's scan the end's mark cannot occur.

    OpenCV refuses other formats that are cut off; Pillow, once ppdet has told it to, fills them up.
    """
    if data.startswith(_JPEG):
        return data.endswith(_JPEG_END) or data.rfind(_JPEG_END) > data.rfind(_JPEG_SCAN)
    if data.startswith(_GIF):
        return data.rstrip(b"\0").endswith(_GIF_END)
    return not data.startswith(_PNG) or _PNG_END in data


def _first_frame(path, data):
    try:
        with Image.open(io.BytesIO(data)) as image:
            frame = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except Exception as error:  # as above: OSError, SyntaxError, EOFError, struct.error, ...
        raise BadImage(path, f"a GIF or WebP that Pillow cannot decode: {error}") from None
    return cv2.imencode(".bmp", frame[:, :, ::-1])[1].tobytes()


def decode(path):
    """An image as training sees it: (H, W, 3) uint8, blue first.

    It is turned as its EXIF orientation says; 16 bits are reduced to 8, an alpha channel is left out.

    Raises:
        BadImage: it cannot be read or decoded.
    """
    data = decodable(path)
    try:
        image = cv2.imdecode(np.frombuffer(data, "uint8"), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as error:
        reason = "too large for OpenCV" if "PIXELS" in str(error) else f"OpenCV cannot decode it: {error}"
        raise BadImage(path, " ".join(reason.split())) from None
    if image is None:
        raise BadImage(path, f"not an image that OpenCV can decode{_looks_like(data)}")
    return image


def _looks_like(data):
    """What lies in an image's place, of what often does."""
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in _PHONES:
        return ": it is a HEIC or AVIF, as phones write them; store it as JPEG"
    return in_place_of("image", data)


def picture(path):
    """The same as a picture of Pillow's, to draw on what was detected on."""
    return Image.fromarray(decode(path)[:, :, ::-1])


def fault(path):
    """Why an image cannot be read, or None if it can."""
    try:
        decode(path)
    except BadImage as bad:
        return bad.reason
    return None
