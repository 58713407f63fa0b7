"""What an export says of itself to whoever is handed it: its files, units and axes, and how they are opened."""

from collections.abc import Mapping
from pathlib import Path

from cytoarch.exports.settings import Format

README_FILE = "README.txt"

FILES: Mapping[Format, str] = {
    "areas": """\
One table per map (and of a person's labels); areas.csv is that of the map,
or of the labels where there is no map.
A row is an area of a section, or of all sections together (section_id "all").
cells: pixels of the map; mm2: their area as on the slide; volume_mm3: mm2 times the part
of the cutting axis that a section stands for (Cavalieri), blank where no places are known.
  pandas.read_csv("areas.csv")
""",
    "qupath": """\
One GeoJSON per section and map: an annotation per area, with holes, name and colour.
Coordinates are x, y in pixels of the scan at full resolution; zero is the outer corner of
its first pixel. In QuPath open the scan, then File > Import objects from file.
""",
    "ome-zarr": """\
sections.ome.zarr is a bioformats2raw collection (OME-Zarr 0.5): an image per section, its
maps under labels/ with names and colours, all on one grid; scales are in micrometres, axes
(c, y, x) and (y, x).
  napari --plugin napari-ome-zarr {example}
""",
    "nifti": """\
The maps as volumes in the frame of the brain: mm, x to the right and y downwards as sections
are shown, z along the cutting axis; the affine leads from voxels to mm. The .tsv names the
values (0: nothing), the .json says how sections were placed.
  nibabel.load("{example}")
""",
    "points": """\
AnnData of the sampled points: embeddings in X; obs says what map, labels and clusters are
there, with colours in uns. obsm["spatial"] is x, y within the section (um),
obsm["brain_mm"] x, y, z in the brain (mm).
  scanpy.read_h5ad("{example}")
""",
    "neuroglancer": """\
A state per section: the scan, its maps over it, names and colours. The states point to the
address that was stated (served_at), where the export's folder must be served.
""",
}


EXAMPLES: Mapping[Format, str] = {"ome-zarr": "*.ome.zarr/*/labels", "nifti": "**/*.nii.gz", "points": "**/*.h5ad"}
"""What is opened in the examples; of OME-Zarr the image that labels lie in."""


def readme(brain_id: str, export_format: Format, folder: Path, left_out: Mapping[str, str]) -> bytes:
    """The text beside an export: what it holds, in which units, how it is opened, and what was left out.

    How it is opened is told of a file that is in its folder.
    """
    title = f"{brain_id}: {export_format}"
    paths = sorted(folder.glob(EXAMPLES[export_format])) if export_format in EXAMPLES else []
    example = paths[0].relative_to(folder).as_posix().removesuffix("/labels") if paths else ""
    parts = [title, "=" * len(title), "", FILES[export_format].format(example=example).rstrip()]
    if left_out:
        parts += ["", "Left out:", *(f"  {name}: {why}" for name, why in left_out.items())]
    parts += ["", "export.json says what this was made of (brain, map, model, settings), and the sha256 of every file."]
    return ("\n".join(parts) + "\n").encode()
