"""Label images keep their ids."""

from pathlib import Path

import numpy as np
import pytest
from known_scans import H, W, noise
from PIL import Image

from cytoarch.errors import ScanError
from cytoarch.images.scans import read_labels


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("suffix", ["png", "tif", "tiff"])
def test_label_images_keep_every_id(tmp_path: Path, dtype: str, suffix: str) -> None:
    ids = noise(H, W, dtype=dtype)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(ids).save(path)
    found = read_labels(path)
    assert found.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(found, ids)


def test_a_palette_label_image_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    ids = noise(H, W) % 5
    image = Image.fromarray(ids, mode="P")
    image.putpalette(list(range(15)))
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), ids)


def test_a_bilevel_label_image_has_ids_0_and_1(tmp_path: Path) -> None:
    ids = noise(H, W) > 100
    Image.fromarray(ids).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), ids)


@pytest.mark.parametrize("name", ["rgb.png", "rgb.tif", "rgba.png", "grey.jpg", "missing.png", "text.png", "cut.png"])
def test_what_cannot_hold_ids_is_refused_as_a_label_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    kind = name.partition(".")[0]
    if kind in ("rgb", "rgba", "grey"):
        pixels = noise(H, W, len(kind) if kind != "grey" else 1)
        Image.fromarray(pixels[..., 0] if kind == "grey" else pixels).save(path)
    elif kind == "text":
        path.write_bytes(b"text")
    elif kind == "cut":
        Image.fromarray(noise(H, W)).save(path)
        path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ScanError, match=name):
        read_labels(path)
