"""What an OME-XML text says of the images of a file."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence

from cytoarch.errors import ScanError
from cytoarch.images.pixel_size import may_be_pixel_size

UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "um": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "inch": 25400.0}


def ome_pixel_size_um(
    ome_xml: str, shape: Sequence[int] | None = None, place: tuple[int, int] = (0, 1)
) -> float | None:
    """The pixel size (um) that an OME-XML text states for an image, or None where it states none.

    `shape` is the (y, x) of the image; `place` its number and how many images the file holds: where the text
    describes as many, that number decides, else the shape, and without a shape the first is taken. Raises ScanError
    if the pixels are not square.

    >>> ome_pixel_size_um('<OME><Image><Pixels PhysicalSizeX="500" PhysicalSizeXUnit="nm"/></Image></OME>')
    0.5
    """
    root = _parsed(ome_xml)
    found = [] if root is None else [element for element in root.iter() if element.tag.rsplit("}", 1)[-1] == "Pixels"]
    number, count = place
    if len(found) == count:
        found = found[number : number + 1]
    elif shape is not None:
        wanted = [str(size) for size in shape]
        found = [pixels for pixels in found if [pixels.get("SizeY"), pixels.get("SizeX")] == wanted]
    sizes_um = {_pixel_size_um(pixels) for pixels in (found if shape is not None else found[:1])}
    return sizes_um.pop() if len(sizes_um) == 1 else None


def ome_voxel_um(ome_xml: str, shape: Sequence[int]) -> tuple[float, float, float] | None:
    """The edges (z, y, x) um of voxels that an OME-XML text states for the stack of a shape (z, y, x).

    None unless it states all three, for one such stack.

    >>> text = '<OME><Image><Pixels SizeZ="3" SizeY="4" SizeX="5" {}/></Image></OME>'
    >>> sizes = 'PhysicalSizeZ="2" PhysicalSizeY="500" PhysicalSizeYUnit="nm" PhysicalSizeX="0.4"'
    >>> ome_voxel_um(text.format(sizes), (3, 4, 5)), ome_voxel_um(text.format('PhysicalSizeX="1"'), (3, 4, 5))
    ((2.0, 0.5, 0.4), None)
    """
    root = _parsed(ome_xml)
    elements = [] if root is None else [one for one in root.iter() if one.tag.rsplit("}", 1)[-1] == "Pixels"]
    wanted = [str(size) for size in shape]
    found = [one for one in elements if [one.get(f"Size{axis}") for axis in "ZYX"] == wanted]
    if len(found) != 1 or any(f"PhysicalSize{axis}" not in found[0].attrib for axis in "ZYX"):
        return None
    z, y, x = (_length_um(found[0], f"PhysicalSize{axis}") for axis in "ZYX")
    return None if z is None or y is None or x is None else (z, y, x)


def names_other_files(ome_xml: str) -> bool:
    """Whether an OME-XML text says that planes lie in other files: their UUID is not that of this one.

    >>> tiff_data = '<OME UUID="urn:uuid:1"><TiffData><UUID FileName="a.tif">urn:uuid:{}</UUID></TiffData></OME>'
    >>> names_other_files(tiff_data.format(1)), names_other_files(tiff_data.format(2))
    (False, True)
    """
    root = _parsed(ome_xml)
    if root is None:
        return False
    named = {(element.text or "").strip() for element in root.iter() if element.tag.rsplit("}", 1)[-1] == "UUID"}
    return len(named | ({root.attrib["UUID"]} if "UUID" in root.attrib else set())) > 1


def _parsed(ome_xml: str) -> ET.Element | None:
    try:
        # expat refuses entity bombs and reads no external entities; a test tries both
        return ET.fromstring(ome_xml)  # noqa: S314 - see above
    except ET.ParseError:
        return None


def _pixel_size_um(pixels: ET.Element) -> float | None:
    if "PhysicalSizeX" not in pixels.attrib:
        return None
    y_name = "PhysicalSizeY" if "PhysicalSizeY" in pixels.attrib else "PhysicalSizeX"
    x_um, y_um = (_length_um(pixels, name) for name in ("PhysicalSizeX", y_name))
    if x_um is None or y_um is None:
        return None
    if abs(x_um - y_um) > 0.01 * x_um and any(map(may_be_pixel_size, (x_um, y_um))):
        raise ScanError(f"its pixels are not square ({y_um:g} x {x_um:g} um by its OME-XML); resample it")
    return x_um


def _length_um(pixels: ET.Element, name: str) -> float | None:
    """A positive length in um, or None where the attribute is no number, not positive, or of an unknown unit."""
    unit = pixels.get(f"{name}Unit", "\u00b5m").replace("\u00b5", "u").replace("\u03bc", "u")
    try:
        length_um = float(pixels.attrib[name]) * UM_PER_UNIT[unit]
    except (ValueError, KeyError):
        return None
    return length_um if 0 < length_um < float("inf") else None
