"""Of several images the largest is the scan where the others can only be its companions; else all are named."""

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from known_scans import Array, noise, opened, refusal, refusal_of, whole

from cytoarch.brains import Label, LabelTable, Section
from cytoarch.errors import ScanError
from cytoarch.images.scans import open_labels, read_labels
from cytoarch.images.sections import write_labels, write_section
from cytoarch.images.views import StoredImage
from cytoarch.store.staging import Staging

H, W = 300, 400
PIXEL_UM = 20.0
PER_CM = (1e4 / PIXEL_UM, 1e4 / PIXEL_UM)
TAGS: dict[str, Any] = {"resolution": PER_CM, "resolutionunit": "CENTIMETER"}


def scan() -> Array:
    return noise(H, W)


def thumbnail() -> Array:
    return noise(H // 4, W // 4, seed=1)


def pages(path: Path, *images: Array, **options: Any) -> Path:
    """A TIFF of one page for each image, which says nothing of how they belong together."""
    with tifffile.TiffWriter(path) as writer:
        for image in images:
            writer.write(image, photometric="minisblack", metadata=None, **{**TAGS, **options})
    return path


def ome(path: Path, *images: Array, sizes_um: Sequence[float] = ()) -> Path:
    """An OME-TIFF of several images, each with a pixel size of its own."""
    with tifffile.TiffWriter(path, ome=True) as writer:
        for image, size in itertools.zip_longest(images, sizes_um or [PIXEL_UM], fillvalue=PIXEL_UM):
            metadata = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
            writer.write(image, photometric="minisblack", metadata=metadata)
    return path


def below_thumbnail(path: Path, image: Array, small: Array) -> Path:
    """A TIFF whose only page is the thumbnail; the scan is a page below it (SubIFD), as cameras write it."""
    with tifffile.TiffWriter(path) as writer:
        writer.write(small, photometric="minisblack", subifds=1, subfiletype=1, metadata=None, **TAGS)
        writer.write(image, photometric="minisblack", metadata=None, **TAGS)
    return path


def scn(path: Path, *images: Array) -> Path:
    """A Leica SCN of several images, in the order of the file."""
    listed = "".join(
        f'<image name="image {ifd}"><pixels sizeX="{one.shape[1]}" sizeY="{one.shape[0]}">'
        f'<dimension sizeX="{one.shape[1]}" sizeY="{one.shape[0]}" r="0" ifd="{ifd}"/></pixels></image>'
        for ifd, one in enumerate(images)
    )
    xml = f'<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection>{listed}</collection></scn>'
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        for number, image in enumerate(images):
            text = xml if number == 0 else None
            colours = np.stack([image] * 3, axis=-1)
            writer.write(colours, photometric="rgb", tile=(64, 64), metadata=None, description=text, **TAGS)
    return path


def svs(path: Path, *images: Array) -> Path:
    """An Aperio SVS: its first page by the scanner's order is the scan, then thumbnail, label, macro."""
    with tifffile.TiffWriter(path) as writer:
        for number, image in enumerate(images):
            text = "Aperio Image Library v12|AppMag = 20|MPP = 20.0" if number == 0 else "Aperio Image Library v12"
            layout = {"tile": (64, 64)} if number == 0 else {"rowsperstrip": 16}
            colours = np.stack([image] * 3, axis=-1)
            writer.write(colours, photometric="rgb", metadata=None, description=text, **layout)
    return path


THUMBNAIL_FIRST: dict[str, Callable[[Path], Path]] = {
    "pages": lambda folder: pages(folder / "a.tif", thumbnail(), scan()),
    "three pages": lambda folder: pages(folder / "a.tif", thumbnail(), scan(), noise(20, 30)),
    "tiled pages": lambda folder: pages(folder / "a.tif", thumbnail(), scan(), tile=(64, 64)),
    "ome": lambda folder: ome(folder / "a.ome.tif", thumbnail(), scan(), sizes_um=(80.0, PIXEL_UM)),
    "three of ome": lambda folder: ome(
        folder / "a.ome.tif", noise(20, 30), thumbnail(), scan(), sizes_um=(1.0, 80.0, PIXEL_UM)
    ),
    "a page below": lambda folder: below_thumbnail(folder / "a.tif", scan(), thumbnail()),
    "scn": lambda folder: scn(folder / "a.scn", thumbnail(), scan()),
}
"""Files whose first image is not the scan."""
THUMBNAIL_LAST: dict[str, Callable[[Path], Path]] = {
    "pages": lambda folder: pages(folder / "a.tif", scan(), thumbnail()),
    "ome": lambda folder: ome(folder / "a.ome.tif", scan(), thumbnail(), sizes_um=(PIXEL_UM, 80.0)),
    "scn": lambda folder: scn(folder / "a.scn", scan(), thumbnail(), noise(20, 30)),
    "svs": lambda folder: svs(folder / "a.svs", scan(), thumbnail(), noise(40, 30), noise(30, 90)),
    "half the resolution, rounded up": lambda folder: ome(folder / "a.ome.tif", scan()[:, :-1], scan()[::2, ::2]),
}


@pytest.mark.parametrize("kind", THUMBNAIL_FIRST)
def test_the_scan_is_the_largest_image_and_that_it_was_not_the_first_is_said(tmp_path: Path, kind: str) -> None:
    path = THUMBNAIL_FIRST[kind](tmp_path)
    found, said = whole(path), opened(path)
    assert found.shape[1:] == (H, W)
    np.testing.assert_array_equal(found[0], scan())
    assert {round(one.value_um, 6) for one in said.stated_pixel_sizes} == {PIXEL_UM}
    (remark,) = [remark for remark in said.remarks if "untested" not in remark and "not been tested" not in remark]
    assert "largest" in remark
    assert any(size in remark for size in ("75 x 100", "20 x 30"))


@pytest.mark.parametrize("kind", THUMBNAIL_LAST)
def test_small_images_behind_the_scan_change_nothing(tmp_path: Path, kind: str) -> None:
    path = THUMBNAIL_LAST[kind](tmp_path)
    found = whole(path)
    np.testing.assert_array_equal(found[0], scan()[:, : found.shape[2]])
    assert found.shape[1] == H
    assert not [remark for remark in opened(path).remarks if "image" in remark]


def test_a_section_is_stored_from_the_largest_image_with_its_pixel_size(staging: Staging, tmp_path: Path) -> None:
    path = THUMBNAIL_FIRST["ome"](tmp_path)
    section = Section(brain_id="B1", section_id="s1", section_number=1, path="a.ome.tif")
    facts = write_section(staging, path, section)
    assert (facts["shape"], facts["pixel_size_um"]) == ([1, H, W], PIXEL_UM)
    assert any("largest of 2 images" in remark for remark in facts["remarks"])
    stored = StoredImage.open(staging.path)
    np.testing.assert_array_equal(stored.levels[0].array[0], scan())


SEVERAL: dict[str, Callable[[Path], Path]] = {
    "pages": lambda folder: pages(folder / "a.tif", scan(), scan()[:-9], thumbnail(), scan()[:, :-9]),
    "ome": lambda folder: ome(folder / "a.ome.tif", scan(), scan()[:-9], thumbnail(), scan()[:, :-9]),
    "scn": lambda folder: scn(folder / "a.scn", scan(), scan()[:-9], thumbnail(), scan()[:, :-9]),
}
"""Three sections on a slide, and a thumbnail."""


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_large_images_are_all_listed_and_counted_by_plane_index(tmp_path: Path, kind: str) -> None:
    path = SEVERAL[kind](tmp_path)
    text = refusal(path)
    assert "plane_index" in text
    assert "0: 300 x 400 pixels; 1: 291 x 400 pixels; 2: 300 x 391 pixels" in text
    assert "75 x 100" not in text
    for index, expected in enumerate((scan(), scan()[:-9], scan()[:, :-9])):
        np.testing.assert_array_equal(whole(path, plane_index=index)[0], expected)
    assert "plane_index is 3" in refusal(path, plane_index=3)


def test_planes_of_several_stacks_are_counted_image_by_image(tmp_path: Path) -> None:
    stack, single = noise(3, H, W), noise(H, W - 9)
    path = tmp_path / "a.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as writer:
        writer.write(single, photometric="minisblack", metadata={"axes": "YX"})
        writer.write(stack, photometric="minisblack", metadata={"axes": "ZYX"})
    assert "0: 300 x 391 pixels; 1 to 3: 300 x 400 pixels" in refusal(path)
    for index, expected in enumerate((single, *stack)):
        np.testing.assert_array_equal(whole(path, plane_index=index)[0], expected)


def test_an_image_of_more_than_a_quarter_of_the_pixels_may_be_a_section(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", scan(), scan()[:155, :205])
    assert "1: 155 x 205 pixels" in refusal(path)


def test_each_of_several_images_has_its_own_pixel_size(tmp_path: Path) -> None:
    path = ome(tmp_path / "a.ome.tif", scan(), scan(), sizes_um=(1.0, 2.0))
    sizes = [opened(path, plane_index=index).stated_pixel_sizes for index in range(2)]
    assert [[one.value_um for one in each] for each in sizes] == [[1.0], [2.0]]


def test_many_images_are_not_all_listed(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", *(noise(50, 50 + number) for number in range(30)))
    text = refusal(path)
    assert "holds 30 images" in text
    assert text.endswith("15: 50 x 65 pixels; ...")


# -- label images ------------------------------------------------------------------------------------------------------


def ids() -> Array:
    return np.kron(noise(H // 50, W // 50) % 3, np.ones((50, 50), np.uint8))


@pytest.mark.parametrize("write", [pages, ome])
@pytest.mark.parametrize("first", [True, False])
def test_the_label_image_is_the_largest_image_too(
    staging: Staging, tmp_path: Path, write: Callable[..., Path], first: bool
) -> None:
    small = ids()[::4, ::4]
    path = write(tmp_path / "a.tif", *((small, ids()) if first else (ids(), small)))
    np.testing.assert_array_equal(read_labels(path), ids())
    section = Section(
        brain_id="B1", section_id="s1", section_number=1, path="b.tif", labels="a.tif", labels_origin="expert"
    )
    table = LabelTable(labels=(Label(id=1, name="A"), Label(id=2, name="B")))
    facts = write_labels(staging, path, section, table, (H, W), PIXEL_UM)
    np.testing.assert_array_equal(StoredImage.open(staging.path / "labels").levels[0].array, ids())
    assert [("largest" in remark) for remark in facts.get("remarks", [])] == ([True] if first else [])


@pytest.mark.parametrize("write", [pages, ome])
def test_a_label_file_of_several_large_images_is_refused_and_all_are_listed(
    tmp_path: Path, write: Callable[..., Path]
) -> None:
    path = write(tmp_path / "a.tif", ids(), ids()[:-9], ids()[:, :-9])
    text = refusal_of(path, lambda: read_labels(path))
    assert "300 x 400" in text
    assert "291 x 400" in text
    assert "300 x 391" in text
    assert "file of its own" in text
    assert "plane_index" not in text


def test_a_stack_of_label_images_is_refused_without_asking_for_a_plane(tmp_path: Path) -> None:
    path = pages(tmp_path / "a.tif", ids(), ids(), ids())
    with pytest.raises(ScanError, match=r"stack of 3 planes.*file of its own"), open_labels(path):
        pass
