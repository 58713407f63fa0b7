"""What scans state about their pixel size."""

from pathlib import Path

import pytest
import tifffile
from known_scans import H, W, noise, opened, read_or_refused, refusal, tiff

from cytoarch.images.ome_xml import ome_pixel_size_um


def stated(path: Path) -> list[tuple[str, float]]:
    return [(one.source, pytest.approx(one.value_um)) for one in opened(path).stated_pixel_sizes]


@pytest.mark.parametrize(("unit", "per_um"), [("CENTIMETER", 1e4), ("INCH", 25400.0)])
def test_resolution_tags_in_cm_and_inches_say_the_same(tmp_path: Path, unit: str, per_um: float) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=(per_um / 0.5, per_um / 0.5), resolutionunit=unit)
    assert stated(path) == [("tiff-tag", 0.5)]


def test_resolution_without_a_unit_or_of_zero_states_nothing(tmp_path: Path) -> None:
    for number, options in enumerate(
        (
            {"resolution": (2, 2), "resolutionunit": "NONE"},
            {"resolution": ((0, 1), (0, 1)), "resolutionunit": "INCH"},
            {},
        )
    ):
        assert stated(tiff(tmp_path / f"{number}.tif", noise(H, W), **options)) == []


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_files_state_their_unit_in_their_own_way(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, noise(H, W), imagej=True, resolution=(2, 2), metadata={"unit": unit})
    assert stated(path) == [("tiff-tag", 0.5)]


@pytest.mark.parametrize(("unit", "value"), [("µm", 0.5), ("nm", 500.0), ("mm", 5e-4)])
def test_ome_tiff_states_its_pixel_size_in_any_unit(tmp_path: Path, unit: str, value: float) -> None:
    path = tmp_path / "a.ome.tif"
    metadata = {"axes": "YX", "PhysicalSizeX": value, "PhysicalSizeXUnit": unit}
    tifffile.imwrite(path, noise(H, W), metadata={**metadata, "PhysicalSizeY": value, "PhysicalSizeYUnit": unit})
    assert stated(path) == [("ome-xml", 0.5)]


def test_the_vendors_statement_is_read_between_ome_xml_and_the_tags(tmp_path: Path) -> None:
    path = tiff(
        tmp_path / "a.svs",
        noise(H, W, 3),
        photometric="rgb",
        description="Aperio Image|AppMag = 20|MPP = 0.4990|Left = 3",
        resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )
    assert stated(path) == [("vendor", 0.499), ("tiff-tag", 0.5)]


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=(2e4, 1e4), resolutionunit="CENTIMETER")
    assert "not square" in refusal(path)
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, noise(H, W), metadata={"axes": "YX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 2.0})
    assert "not square" in refusal(path)


OME = '<OME><Image><Pixels PhysicalSizeX="{}" PhysicalSizeXUnit="{}" {}/></Image></OME>'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (OME.format("0.5", "µm", ""), 0.5),
        (OME.format("0.5", "\u03bcm", ""), 0.5),
        (OME.format("0.5", "furlong", ""), None),
        (OME.format("0", "µm", ""), None),
        (OME.format("-1", "µm", ""), None),
        (OME.format("nan", "µm", ""), None),
        (OME.format("half", "µm", ""), None),
        (OME.format("500", "nm", 'PhysicalSizeY="0.5" PhysicalSizeYUnit="µm"'), 0.5),
        ("<OME/>", None),
        ("no xml", None),
        ("", None),
    ],
)
def test_ome_xml_states_a_size_or_nothing(text: str, expected: float | None) -> None:
    assert ome_pixel_size_um(text) == (None if expected is None else pytest.approx(expected))


def test_an_entity_bomb_and_an_external_entity_in_ome_xml_do_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0.25")
    levels = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    bomb = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY l0 "0.5">{levels}]>'
        '<OME><Pixels PhysicalSizeX="1">&l11;</Pixels></OME>'
    )
    outside = (
        f'<?xml version="1.0"?><!DOCTYPE OME [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'
        '<OME><Image><Pixels PhysicalSizeX="1"/><Name>&x;</Name></Image></OME>'
    )
    for number, text in enumerate((bomb, outside)):
        assert ome_pixel_size_um(text) is None
        path = tiff(tmp_path / f"{number}.ome.tif", noise(H, W), description=text)
        if read_or_refused(path) is not None:
            assert "ome-xml" not in [source for source, _ in stated(path)]
