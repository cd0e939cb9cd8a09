"""Image files of any bytes: decoded, or a few words on why not; no file takes much more memory than it has bytes."""

import io

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from ppkd.bridge import images
from tests.fuzz.inputs import inputs
from tests.fuzz.test_weights import changed_bytes

PIXELS = np.random.RandomState(0).randint(0, 255, (9, 11, 3), "uint8")


def _encoded(kind, **options):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, kind, **options)
    return stream.getvalue()


FILES = [_encoded(kind) for kind in ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")]
FILES += [_encoded("JPEG", progressive=True), _encoded("TIFF", compression="tiff_lzw")]


@pytest.mark.parametrize("kind", ["changed", "bytes"])
def test_images(tmp_path_factory, quiet, kind):
    path = tmp_path_factory.mktemp("fuzz") / "x.jpg"
    Image.init()  # imports what it knows
    for content in FILES:
        path.write_bytes(content)
        images.decode(str(path))
    begins = st.sampled_from([content[:12] for content in FILES])

    @inputs(changed_bytes(FILES) if kind == "changed" else st.tuples(begins, st.binary(max_size=99)).map(b"".join))
    def run(content):
        path.write_bytes(content)
        try:
            with quiet():
                found = images.decode(str(path))
        except images.BadImage as error:
            assert str(error).startswith(f"{path}: ")
            return
        assert found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8 and found.size < 1 << 30

    run()
