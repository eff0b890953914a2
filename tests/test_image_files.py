"""Images as people have them: orientation tags, damage, transparency, formats; read right, or refused in one line."""

import io

import numpy as np
import pytest
from captures import assert_same, both, check, edit_frames, image, opened, prepared
from PIL import Image

from dataset.check.page import verdict
from dataset.maps import read_depth
from utils.errors import UserError
from utils.images import read_color, require_whole


def tagged(data: bytes, tag: int, suffix: str) -> bytes:
    """An image file with an orientation tag, its pixels as they are."""
    exif = Image.Exif()
    exif[274] = tag
    if suffix == ".jpg":  # inserted, so that nothing is encoded again
        content = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
        return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]
    out, picture = io.BytesIO(), Image.open(io.BytesIO(data))
    options = {"tiffinfo": {274: tag}} if suffix == ".tif" else {"exif": exif.tobytes()}
    picture.save(
        out,
        {".png": "PNG", ".tif": "TIFF", ".webp": "WEBP"}[suffix],
        **options,
        **({"lossless": True} if suffix == ".webp" else {}),
    )
    return out.getvalue()


@pytest.mark.parametrize(
    ("suffix", "tag"), [(".jpg", 3), (".jpg", 6), (".jpg", 8), (".png", 6), (".tif", 3), (".tif", 6), (".webp", 6)]
)
def test_an_orientation_tag_turns_nothing_and_is_not_copied(capture, truth, tag, suffix):
    for path in (capture / "images").iterdir():
        data = tagged(path.read_bytes(), tag, suffix)
        path.unlink()
        path.with_suffix(suffix).write_bytes(data)
    edit_frames(capture, lambda frame: frame.update(file_path=frame["file_path"].replace(".jpg", suffix)))
    for scene in both(capture):
        assert_same(scene, truth)
    for path in (capture.parent / "data" / "transforms" / "mine" / "images").iterdir():
        assert Image.open(path).getexif().get(274, 1) == 1


def test_depth_in_a_turned_tiff_is_read_as_stored(tmp_path):
    values = np.arange(12, dtype=np.uint16).reshape(3, 4) + 500
    Image.fromarray(values).save(tmp_path / "d.tif", tiffinfo={274: 6})
    np.testing.assert_array_equal(read_depth(tmp_path / "d.tif"), values)


@pytest.mark.parametrize("content", [b"\xff" * 60, bytes(range(100, 160))])
def test_a_damaged_jpeg_is_counted_and_named(capture, content):
    path = image(capture)
    data = bytearray(path.read_bytes())
    for start in range(len(data) // 3, len(data) - 100, 200):  # bytes may happen to decode without an error
        damaged = bytes(data[:start]) + content + bytes(data[start + 60 :])
        path.write_bytes(damaged)
        try:
            read_color(path)
        except UserError:
            break
    with pytest.raises(UserError, match=r"images/3.jpg: the image is (damaged|truncated)"):
        opened(capture).views(["3"])
    report = check(f"{capture}/black_64", sample=0)
    assert len(report.inventory.unreadable) == 1 and "3.jpg" in verdict(report)[0]
    assert report.consistency is not None  # of the other frames
    with pytest.raises(UserError, match="3.jpg"):
        prepared(capture)
    assert not (capture.parent / "data" / "transforms" / "mine").exists()


def test_most_overwritten_jpegs_are_noticed(base, tmp_path):
    data, rng, path, noticed = image(base).read_bytes(), np.random.default_rng(0), tmp_path / "x.jpg", [0, 0]
    for _ in range(60):
        start = int(rng.integers(700, len(data) - 100))
        path.write_bytes(data[:start] + rng.bytes(60) + data[start + 60 :])
        for thoroughness, read in enumerate((read_color, lambda path: read_color(path) is None or require_whole(path))):
            try:
                read(path)
            except UserError:
                noticed[thoroughness] += 1
    assert noticed[0] >= 42 and noticed[1] >= 53


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("size", [(64, 48), (101, 77), (3, 5)])
@pytest.mark.parametrize(
    "options",
    [
        {"subsampling": 0},
        {"subsampling": 1},
        {"quality": 30, "optimize": True},
        {"restart_marker_blocks": 7},
        {"progressive": True},
    ],
    ids=str,
)
def test_whole_jpegs_of_any_kind_are_whole(base, tmp_path, options, size, mode):
    Image.open(image(base)).resize(size).convert(mode).save(tmp_path / "x.jpg", **options)
    require_whole(tmp_path / "x.jpg")


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_png_is_an_error(capture, where):
    path = capture / "depth" / "3.png"
    data = bytearray(path.read_bytes())
    start = int(where * len(data))
    data[start : start + 8] = bytes(byte ^ 0x55 for byte in data[start : start + 8])
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"depth/3.png: the image is (damaged|truncated)"):
        read_depth(path)


@pytest.mark.parametrize("content", [b"v/1\x01\x02", b"\0\0\0\x18ftypheic", b"\xff\xd8\xff\xe0"])
def test_formats_that_are_not_read_are_named(content, tmp_path):
    (tmp_path / "d.xyz").write_bytes(content + bytes(20))
    with pytest.raises(UserError, match="OpenEXR is not read|HEIC or AVIF is not read|is a JPEG, which does not keep"):
        read_depth(tmp_path / "d.xyz")


def test_transparent_pixels_show_black(tmp_path):
    picture = np.full((4, 4, 4), 200, np.uint8)
    picture[..., 3] = np.uint8([255, 0, 128, 255])
    Image.fromarray(picture).save(tmp_path / "a.png")
    assert read_color(tmp_path / "a.png")[0, :, 0].tolist() == [200, 0, 100, 200]
