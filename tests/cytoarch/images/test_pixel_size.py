import itertools

import pytest

from cytoarch.brains import Section
from cytoarch.errors import ScanError
from cytoarch.images.pixel_size import resolve_pixel_size
from cytoarch.images.planes import StatedPixelSize


def section(**changes: object) -> Section:
    return Section.model_validate(
        {"brain_id": "B1", "section_id": "s1", "section_number": 1, "path": "scans/a.tif", **changes}
    )


OME, VENDOR, TAG = (StatedPixelSize(source, 0.5) for source in ("ome-xml", "vendor", "tiff-tag"))


def test_the_manifest_is_trusted_first_then_ome_xml_then_the_vendor_then_the_tag() -> None:
    stated = [OME, VENDOR, TAG]
    assert resolve_pixel_size(section(pixel_size_um=0.5), stated).source == "manifest"
    for first in range(3):
        assert resolve_pixel_size(section(), stated[first:]).source == stated[first].source


def test_the_value_is_the_one_its_source_states() -> None:
    assert resolve_pixel_size(section(pixel_size_um=0.502), [TAG]).value_um == 0.502
    assert resolve_pixel_size(section(), [StatedPixelSize("ome-xml", 0.498), TAG]).value_um == 0.498


@pytest.mark.parametrize("ratio", [0.991, 1.0, 1.009])
def test_statements_within_one_percent_agree(ratio: float) -> None:
    size = resolve_pixel_size(section(pixel_size_um=0.5), [StatedPixelSize("tiff-tag", 0.5 * ratio)])
    assert (size.value_um, size.remarks) == (0.5, ())


@pytest.mark.parametrize("ratio", [0.1, 0.98, 1.02, 2.0])
def test_statements_that_differ_by_more_are_refused_and_both_are_named(ratio: float) -> None:
    other = StatedPixelSize("tiff-tag", 0.5 * ratio)
    for who, stated in ((section(pixel_size_um=0.5), [other]), (section(), [OME, other])):
        with pytest.raises(ScanError, match=r"scans/a\.tif") as caught:
            resolve_pixel_size(who, stated)
        assert "0.5 um" in str(caught.value)
        assert f"{other.value_um:g} um by tiff-tag" in str(caught.value)


def test_any_one_of_several_statements_may_disagree() -> None:
    for wrong in range(3):
        stated = [OME, VENDOR, TAG]
        stated[wrong] = StatedPixelSize(stated[wrong].source, 0.7)
        with pytest.raises(ScanError, match=r"0\.7 um"):
            resolve_pixel_size(section(pixel_size_um=0.5), stated)


def test_the_manifest_may_overrule_the_file_and_a_remark_says_so() -> None:
    who = section(pixel_size_um=2.0, pixel_size_source="manifest")
    size = resolve_pixel_size(who, [OME, StatedPixelSize("tiff-tag", 2.0)])
    assert (size.value_um, size.source) == (2.0, "manifest")
    assert size.remarks == ("ome-xml states 0.5 um: overruled by the manifest",)


@pytest.mark.parametrize("implausible", [352.778, 0.01, 0.0, -1.0, float("inf"), float("nan")])
def test_an_implausible_statement_is_passed_over_with_a_remark(implausible: float) -> None:
    size = resolve_pixel_size(section(), [StatedPixelSize("ome-xml", implausible), TAG])
    assert (size.value_um, size.source) == (0.5, "tiff-tag")
    (remark,) = size.remarks
    assert remark.startswith("ome-xml")


@pytest.mark.parametrize("edge", [0.05, 100.0])
def test_the_limits_themselves_are_plausible(edge: float) -> None:
    assert resolve_pixel_size(section(), [StatedPixelSize("tiff-tag", edge)]).value_um == edge


@pytest.mark.parametrize("stated", [[], [StatedPixelSize("tiff-tag", 352.778)]])
def test_a_section_without_any_pixel_size_is_refused_and_told_what_to_fill_in(stated: list[StatedPixelSize]) -> None:
    with pytest.raises(ScanError, match=r"scans/a\.tif.*fill in pixel_size_um"):
        resolve_pixel_size(section(), stated)


def test_whether_statements_agree_does_not_depend_on_which_of_them_is_used() -> None:
    for a, b in itertools.permutations((0.5, 0.504, 0.6), 2):
        agree = abs(a - b) < 0.01
        for who, stated in (
            (section(pixel_size_um=a), [StatedPixelSize("tiff-tag", b)]),
            (section(), [StatedPixelSize("ome-xml", a), StatedPixelSize("tiff-tag", b)]),
        ):
            if agree:
                assert resolve_pixel_size(who, stated).value_um == a
            else:
                with pytest.raises(ScanError):
                    resolve_pixel_size(who, stated)
