"""The sections of a brain as one NGFF collection: the layout of bioformats2raw, version 3."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from cytoarch.brains import Brain
from cytoarch.errors import StoreError
from cytoarch.store.brain_store import group_metadata
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.disk import write_atomically
from cytoarch.store.products import PLACES, Product
from cytoarch.store.records import read_record

NGFF_VERSION = "0.5"
FILES = ("zarr.json", "OME/zarr.json", "OME/METADATA.ome.xml")
"""The files of a collection itself, below its folder."""
COLLECTION = tuple(f"{PLACES['sections'].split('/')[0]}/{name}" for name in FILES)
"""Those of a brain's collection of sections, below the brain's folder."""
SCHEMA = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


class Image(NamedTuple):
    """An image of a collection."""

    path: str
    facts: Mapping[str, Any]
    """Its shape (c, y, x), dtype and pixel_size_um; empty where its record cannot be read."""


def files_of(images: Sequence[Image]) -> dict[str, bytes]:
    """The files of a collection itself, by their key in its folder."""
    layout = {"ome": {"version": NGFF_VERSION, "bioformats2raw.layout": 3}}
    series = {"ome": {"version": NGFF_VERSION, "series": [one.path for one in images]}}
    contents = (group_metadata(layout), group_metadata(series), ome_xml(images))
    return dict(zip(FILES, contents, strict=True))


def ome_xml(images: Sequence[Image]) -> bytes:
    """The images of a collection as OME-XML, in order: readers that find them there look nowhere else."""
    root = ET.Element("OME", {"xmlns": SCHEMA})
    for path, facts in images:
        image = ET.SubElement(root, "Image", {"ID": f"Image:{path}", "Name": path})
        if not {"shape", "dtype", "pixel_size_um"} <= facts.keys():  # not to be read, or of an older version
            continue
        sizes = dict(zip(("SizeC", "SizeY", "SizeX"), map(str, facts["shape"]), strict=True))
        edge = {f"PhysicalSize{axis}": f"{facts['pixel_size_um']:.10g}" for axis in "XY"}
        units = {f"PhysicalSize{axis}Unit": "µm" for axis in "XY"}
        kind = {"ID": f"Pixels:{path}", "DimensionOrder": "XYCZT", "Type": facts["dtype"], "SizeZ": "1", "SizeT": "1"}
        pixels = ET.SubElement(image, "Pixels", {**kind, **sizes, **edge, **units})
        for channel in range(int(facts["shape"][0])):
            ET.SubElement(pixels, "Channel", {"ID": f"Channel:{path}:{channel}", "SamplesPerPixel": "1"})
        ET.SubElement(pixels, "MetadataOnly")
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True))


def collection_files(catalogue: Catalogue, brain: Brain) -> dict[str, bytes]:
    """The files of a brain's collection itself, by their key in the folder of the brain."""
    names = catalogue.names("sections")
    images = [_image(catalogue, names, one) for one in _series(catalogue, names, brain)]
    return dict(zip(COLLECTION, files_of(images).values(), strict=True))


def write_collection(catalogue: Catalogue, brain: Brain) -> None:
    """Write the metadata of a brain's collection of sections; files that are as they should be are left alone."""
    for key, content in collection_files(catalogue, brain).items():
        path = catalogue.folder / key
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def _series(catalogue: Catalogue, names: Sequence[str], brain: Brain) -> list[str]:
    committed = {one for name in names for one in catalogue.section_ids("sections", name)}
    return [section.section_id for section in brain.kept if section.section_id in committed]


def _image(catalogue: Catalogue, names: Sequence[str], section_id: str) -> Image:
    """What the record of a section says of its pixels, whether or not its files are still whole."""
    for name in names:
        product = Product("sections", name, section_id)
        try:
            record = catalogue.record(product) or read_record(catalogue.record_path(product))
        except (StoreError, FileNotFoundError):  # `verify` names it
            continue
        return Image(section_id, record.facts)
    return Image(section_id, {})
