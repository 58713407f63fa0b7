import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_scans import Array, noise, read_whole, refusal_of

from cytoarch.errors import ScanError
from cytoarch.images import czi
from cytoarch.images.czi import czi_pixel_sizes, open_czi
from cytoarch.images.planes import Scan

pylib = pytest.importorskip("pylibCZIrw.czi", reason="reading CZI needs the extra: pip install 'cytoarch[czi]'")

H, W = 90, 130
METRES_PER_UM = 1e-6


def write(path: Path, *parts: tuple[Array, dict[str, Any]], scale_um: float = 0.5, **options: Any) -> Path:
    """A CZI file of some tiles, each (y, x) or (y, x, rgb), with where it lies."""
    with pylib.create_czi(str(path), **options) as file:
        for pixels, place in parts:
            stored = pixels[..., None] if pixels.ndim == 2 else pixels[..., ::-1]  # colours are stored blue first
            assert file.write(stored, **place)
        file.write_metadata(scale_x=scale_um * METRES_PER_UM, scale_y=scale_um * METRES_PER_UM)
    return path


def whole(path: Path, plane_index: int | None = None) -> tuple[Scan, Array]:
    with ExitStack() as stack:
        scan = open_czi(path, stack, plane_index)
        return scan, read_whole(scan)


def refusal(path: Path, plane_index: int | None = None) -> str:
    return refusal_of(path, lambda: whole(path, plane_index))


@pytest.mark.parametrize(
    "compression", [None, "zstd0:ExplicitLevel=1", "zstd1:ExplicitLevel=1;PreProcess=HiLoByteUnpack"]
)
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("colour", [False, True])
def test_pixels_come_back_bit_for_bit_and_in_the_order_of_rgb(
    tmp_path: Path, dtype: str, colour: bool, compression: str | None
) -> None:
    pixels = noise(H, W, 3, dtype=dtype) if colour else noise(H, W, dtype=dtype)
    options = {} if compression is None else {"compression_options": compression}
    path = write(tmp_path / "a.czi", (pixels, {}), **options)
    if colour and dtype == "uint16" and "zstd1" in str(compression):
        assert "misread" in refusal(path)
        return
    scan, found = whole(path)
    assert scan.kind == ("rgb" if colour else "grey")
    assert scan.shape == (3 if colour else 1, H, W)
    assert scan.remarks == ()
    assert [(one.source, one.value_um) for one in scan.stated_pixel_sizes] == [("vendor", pytest.approx(0.5))]
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1) if colour else pixels[None])


def test_any_window_is_that_part_of_the_plane(tmp_path: Path) -> None:
    pixels = noise(H, W, 3)
    path = write(tmp_path / "a.czi", (pixels, {"location": (-77, 1234)}))
    with ExitStack() as stack:
        scan = open_czi(path, stack, None)
        for y, x, h, w in ((0, 0, 1, 1), (H - 1, W - 1, 1, 1), (10, 20, 30, 40), (0, 0, H, W)):
            np.testing.assert_array_equal(scan.read(y, x, h, w), pixels[y : y + h, x : x + w].transpose(2, 0, 1))


@pytest.mark.parametrize(("colour", "filling"), [(False, 0), (True, 255)])
def test_a_mosaic_begins_where_its_tiles_do_and_holes_have_the_background(
    tmp_path: Path, colour: bool, filling: int
) -> None:
    tiles = [noise(40, 50, 3, seed=n) if colour else noise(40, 50, seed=n) for n in range(3)]
    places = ((-20, 300), (30, 300), (-20, 340))
    path = write(tmp_path / "a.czi", *((tile, {"location": at}) for tile, at in zip(tiles, places, strict=True)))
    scan, found = whole(path)
    expected = np.full((80, 100, 3) if colour else (80, 100), filling, dtype=np.uint8)
    expected[:40, :50], expected[:40, 50:], expected[40:, :50] = tiles
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1) if colour else expected[None])
    assert scan.remarks == (
        "mosaic begins at y 300, x -20 of the slide",
        f"tiles cover at most 75.0% of the plane, the rest reads as {'white' if colour else '0'}",
    )


def test_channels_are_channels(tmp_path: Path) -> None:
    planes = noise(4, H, W, dtype="uint16")
    scan, found = whole(write(tmp_path / "a.czi", *((one, {"plane": {"C": c}}) for c, one in enumerate(planes))))
    assert (scan.kind, scan.shape) == ("multichannel", (4, H, W))
    np.testing.assert_array_equal(found, planes)


def test_planes_count_through_scenes_then_time_then_focus(tmp_path: Path) -> None:
    parts, order = [], []
    for scene in range(2):
        for t in range(2):
            for z in range(3):
                pixels = noise(2, H + scene, W, seed=len(order))
                order.append(pixels)
                place = {"location": (1000 * scene, 0), "scene": scene}
                parts += [(pixels[c], {**place, "plane": {"T": t, "Z": z, "C": c}}) for c in range(2)]
    path = write(tmp_path / "a.czi", *parts)
    for index, expected in enumerate(order):
        scan, found = whole(path, index)
        assert scan.shape == (2, H + (index >= 6), W)
        np.testing.assert_array_equal(found, expected)
    text = refusal(path)
    assert "12 plane(s)" in text
    assert "0: scene 0, T 0, Z 0; 1: scene 0, T 0, Z 1" in text
    assert "11: scene 1, T 1, Z 2" in text
    assert "plane_index is 12" in refusal(path, 12)
    refusal(path, -1)


def test_colour_images_in_channels_are_planes(tmp_path: Path) -> None:
    images = [noise(H, W, 3, seed=c) for c in range(2)]
    path = write(tmp_path / "a.czi", *((one, {"plane": {"C": c}}) for c, one in enumerate(images)))
    assert "1: scene 0, C 1" in refusal(path)
    for c, expected in enumerate(images):
        np.testing.assert_array_equal(whole(path, c)[1], expected.transpose(2, 0, 1))


def test_many_choices_are_not_all_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.czi", *((noise(4, 4), {"plane": {"Z": z}}) for z in range(30)))
    text = refusal(path)
    assert "15: scene 0, Z 15; ..." in text
    assert "Z 16" not in text


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", []),
        ("no xml", []),
        ("<a/>", []),
        ('<a><Scaling><Items><Distance Id="X"><Value>nan</Value></Distance></Items></Scaling></a>', []),
        ('<a><Scaling><Items><Distance Id="X"><Value>0</Value></Distance></Items></Scaling></a>', []),
        ('<a><Scaling><Items><Distance Id="X"><Value>half</Value></Distance></Items></Scaling></a>', []),
        ('<a><Scaling><Items><Distance Id="X"><Value>2.2e-7</Value></Distance></Items></Scaling></a>', [0.22]),
    ],
)
def test_metadata_state_a_size_or_nothing(text: str, sizes: list[float]) -> None:
    assert [one.value_um for one in czi_pixel_sizes(Path("a.czi"), text)] == pytest.approx(sizes)


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    with pylib.create_czi(str(tmp_path / "a.czi")) as file:
        file.write(noise(H, W, 1))
        file.write_metadata(scale_x=1e-6, scale_y=2e-6)
    assert "not square" in refusal(tmp_path / "a.czi")


def test_pixels_that_are_floats_or_differ_are_refused(tmp_path: Path) -> None:
    assert "Gray32Float" in refusal(write(tmp_path / "a.czi", (np.zeros((H, W), dtype=np.float32), {})))
    path = write(tmp_path / "b.czi", (noise(H, W), {"plane": {"C": 0}}), (noise(H, W, 3), {"plane": {"C": 1}}))
    assert "Gray8, Bgr24" in refusal(path)


@pytest.mark.parametrize("kept", [0, 5, 100, 0.1, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_a_truncated_file_is_refused_or_holds_every_pixel(tmp_path: Path, kept: float) -> None:
    tiles = [noise(40, W, seed=n) for n in range(3)]
    path = write(tmp_path / "a.czi", *((tile, {"location": (0, 40 * n)}) for n, tile in enumerate(tiles)))
    expected = whole(path)[1]
    body = path.read_bytes()
    path.write_bytes(body[: kept if isinstance(kept, int) else int(len(body) * kept)])
    try:
        _, found = whole(path)
    except ScanError:
        return
    assert kept > 0.9
    np.testing.assert_array_equal(found, expected)


def test_tiles_that_decode_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.czi", (noise(H, W, 3), {}))
    monkeypatch.setattr(czi, "MAX_TILE_BYTES", 3 * H * W - 1)
    assert "tiles decode" in refusal(path)


def test_without_the_extra_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.czi", (noise(H, W), {}))
    monkeypatch.setitem(sys.modules, "pylibCZIrw", None)
    assert "pip install 'cytoarch[czi]'" in refusal(path)


def test_importing_the_module_loads_no_reader() -> None:
    program = "import sys, cytoarch.images.czi; print('pylibCZIrw' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "False"
