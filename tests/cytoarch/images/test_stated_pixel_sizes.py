"""What scans state about their pixel size."""

import json
from pathlib import Path

import pytest
import tifffile
from known_scans import H, W, noise, opened, read_or_refused, refusal, tiff
from known_stores import write as write_store
from PIL import Image

from cytoarch.brains import Section
from cytoarch.errors import ScanError
from cytoarch.images.ome_xml import ome_pixel_size_um
from cytoarch.images.sections import write_section
from cytoarch.store.staging import Staging


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


@pytest.mark.parametrize("dpi", [(204, 98), (204, 196), (300, 600)])
def test_densities_that_are_no_pixel_sizes_need_not_be_square(
    staging: Staging, tmp_path: Path, dpi: tuple[int, int]
) -> None:
    """Fax machines and printers have other densities across than along."""
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=dpi, resolutionunit="INCH")
    section = Section(brain_id="B1", section_id="s1", section_number=1, path="a.tif", pixel_size_um=2.0)
    facts = write_section(staging, path, section)
    assert (facts["pixel_size_um"], facts["pixel_size_source"]) == (2.0, "manifest")
    assert "ignored" in facts["remarks"][0]


@pytest.mark.parametrize("metadata", ["OME-XML", "NGFF"])
def test_converters_carry_such_densities_along(tmp_path: Path, metadata: str) -> None:
    x_um, y_um = 25400 / 300, 25400 / 600
    if metadata == "OME-XML":
        sizes = {"axes": "YX", "PhysicalSizeX": x_um, "PhysicalSizeY": y_um}
        tifffile.imwrite(tmp_path / "a.ome.tif", noise(H, W), metadata=sizes)
        assert stated(tmp_path / "a.ome.tif") == []
    else:
        path = write_store(tmp_path / "a.zarr", noise(H, W), "yx", "0.5", scale=1.0)
        group = json.loads((path / "zarr.json").read_text())
        for dataset in group["attributes"]["ome"]["multiscales"][0]["datasets"]:
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": [y_um, x_um]}]
        (path / "zarr.json").write_text(json.dumps(group))
        assert stated(path) == []


# -- print densities ---------------------------------------------------------------------------------------------------

DENSITIES = (72, 96, 150, 300, 600, 1200)
PER_CM = {
    72: (28, 28.3, 28.35),
    96: (37, 38, 37.8),
    150: (59, 59.06),
    300: (118, 118.1, 118.11),
    600: (236, 236.2),
    1200: (472, 472.44),
}


def said(path: Path) -> tuple[list[tuple[str, float]], str]:
    return stated(path), "; ".join(opened(path).remarks)


@pytest.mark.parametrize("dpi", DENSITIES)
def test_a_print_density_is_no_pixel_size_in_inches_or_rounded_to_centimetres(tmp_path: Path, dpi: int) -> None:
    options = [("INCH", float(dpi)), *(("CENTIMETER", per_cm) for per_cm in (dpi / 2.54, *PER_CM[dpi]))]
    for number, (unit, density) in enumerate(options):
        path = tiff(tmp_path / f"{number}.tif", noise(H, W), resolution=(density, density), resolutionunit=unit)
        found, remarks = said(path)
        assert found == [], (unit, density)
        assert f"is {dpi} dpi: a print density" in remarks


@pytest.mark.parametrize("unit", ["inch", "cm", "um"])
def test_imagej_carries_print_densities_along(tmp_path: Path, unit: str) -> None:
    path = tmp_path / "a.tif"
    density = 300 / {"inch": 1, "cm": 2.54, "um": 25400}[unit]
    tifffile.imwrite(path, noise(H, W), imagej=True, resolution=(density, density), metadata={"unit": unit})
    found, remarks = said(path)
    assert found == []
    assert "300 dpi" in remarks


def test_converters_carry_print_densities_into_ome_xml(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    size = 25400 / 600
    tifffile.imwrite(path, noise(H, W), metadata={"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size})
    found, remarks = said(path)
    assert found == []
    assert "ome-xml states 42.3333 um, which is 600 dpi" in remarks


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_converters_carry_print_densities_into_ome_zarr(tmp_path: Path, version: str) -> None:
    path = write_store(tmp_path / "a.zarr", noise(150, 210), "yx", version, scale=25400 / 1200)
    found, remarks = said(path)
    assert found == []
    assert "1200 dpi" in remarks


@pytest.mark.parametrize(
    "size_um", [0.1, 0.22, 0.25, 0.499, 0.5, 1.0, 1.25, 2.0, 4.0, 5.0, 8.0, 10.0, 20.0, 25.0, 40.0, 50.0, 80.0, 100.0]
)
def test_the_pixel_sizes_of_microscopes_are_no_print_densities(tmp_path: Path, size_um: float) -> None:
    for number, (unit, per_um) in enumerate((("CENTIMETER", 1e4), ("INCH", 25400.0))):
        density = per_um / size_um
        path = tiff(tmp_path / f"{number}.tif", noise(H, W), resolution=(density, density), resolutionunit=unit)
        assert said(path) == ([("tiff-tag", size_um)], "")


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_png_and_jpeg_state_no_pixel_size_whatever_their_density(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise(H, W)).save(path, dpi=(300, 300))
    assert stated(path) == []


@pytest.mark.parametrize("dpi", [300, 600])
def test_a_section_whose_scan_states_a_print_density_must_be_given_its_pixel_size(
    staging: Staging, tmp_path: Path, dpi: int
) -> None:
    path = tiff(tmp_path / "a.tif", noise(H, W), resolution=(dpi, dpi), resolutionunit="INCH")
    section = Section(brain_id="B1", section_id="s1", section_number=1, path="a.tif")
    with pytest.raises(ScanError, match=r"print density.*fill in pixel_size_um"):
        write_section(staging, path, section)
    facts = write_section(staging, path, section.model_copy(update={"pixel_size_um": 0.5}))
    assert (facts["pixel_size_um"], facts["pixel_size_source"]) == (0.5, "manifest")
    assert any(f"{dpi} dpi: a print density" in remark for remark in facts["remarks"])


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
