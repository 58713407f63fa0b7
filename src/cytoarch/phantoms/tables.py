"""The truth of a written phantom as tables and surfaces: what the label images cannot hold."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
from nibabel.gifti import GiftiDataArray, GiftiImage, GiftiLabel, GiftiLabelTable

from cytoarch.palette import distinct_colours
from cytoarch.phantoms.anatomy import AREA_COUNT, HEMISPHERES, area_names, area_regions
from cytoarch.phantoms.cortex import SURFACE_DEPTHS, surfaces
from cytoarch.phantoms.points import midline_points
from cytoarch.phantoms.profiles import LAYERS
from cytoarch.phantoms.sections import Phantom, PhantomSection
from cytoarch.phantoms.surfaces import Surface, adjacency, area_sizes_mm2

Row = dict[str, object]

POINT_SPACING_MM = 1.0


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """A table with the columns of its first row."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_truth(
    folder: Path,
    phantom: Phantom,
    names: Mapping[str, PhantomSection],
    sections: Sequence[PhantomSection],
    first: int,
    pixel_size_um: float,
) -> None:
    """Tables of sections, points, areas and their neighbours, and the surfaces of both hemispheres as GIFTI."""
    folder.mkdir(exist_ok=True)
    meshes = {name: surfaces(phantom.brain, depth) for name, depth in SURFACE_DEPTHS.items()}
    write_csv(folder / "sections.csv", [_section_row(section, first, pixel_size_um) for section in sections])
    points = [row for name, section in names.items() for row in point_rows(name, section, pixel_size_um)]
    if points:
        write_csv(folder / "points.csv", points)
    write_csv(folder / "areas.csv", list(area_rows(phantom, meshes["mid"])))
    touching = adjacency(meshes["mid"], AREA_COUNT)
    pairs = [(a, b) for a in range(AREA_COUNT) for b in range(a + 1, AREA_COUNT) if touching[a, b]]
    write_csv(folder / "neighbours.csv", [{"area": area_names()[a], "neighbour": area_names()[b]} for a, b in pairs])
    for name, both in meshes.items():
        for side, surface in zip(HEMISPHERES, both, strict=True):
            _write_gifti(folder, side, name, surface)


def _section_row(section: PhantomSection, first: int, pixel_size_um: float) -> Row:
    mounting = section.mounting
    transform = section.to_brain.copy()
    transform[:, :2] *= pixel_size_um / 1000
    transform[:, 2] += transform[:, :2] @ [0.5, 0.5]  # the middle of pixel (0, 0)
    return {
        "section_id": f"s{section.number - first:04d}",
        "section_number": section.number - first,
        "missing": "yes" if mounting.missing else "no",
        "mirrored": "yes" if mounting.mirrored else "no",
        "rotation_deg": round(mounting.rotation_deg, 4),
        "shrinkage": round(mounting.shrinkage, 5),
        "tears": len(mounting.tears),
        "folds": len(mounting.folds),
        "bands_out_of_focus": len(mounting.blurs),
        **{
            f"{axis}_mm_per_{of}" if of != "origin" else f"{axis}_mm_of_first_pixel": f"{transform[row, column]:.9g}"
            for row, axis in enumerate("xyz")
            for column, of in enumerate(("y_px", "x_px", "origin"))
        },
    }


def point_rows(name: str, section: PhantomSection, pixel_size_um: float) -> Iterable[Row]:
    """The points of a section every mm along the middle of its cortex, in pixels of its scan, with their truth."""
    points = midline_points(section, POINT_SPACING_MM)
    for index in range(len(points.slide_mm)):
        one = points.truth[np.array([index])]
        y, x = points.slide_mm[index] * 1000 / pixel_size_um - 0.5
        yield {
            "section_id": name,
            "y_px": round(float(y), 2),
            "x_px": round(float(x), 2),
            "hemisphere": HEMISPHERES[int(one.hemisphere[0]) - 1],
            "area_id": int(one.area[0]),
            "area": area_names()[int(one.area[0]) - 1],
            "depth": round(float(one.depth[0]), 4),
            **{f"{axis}_mm": round(float(one.position_mm[0, k]), 4) for k, axis in enumerate("xyz")},
            "cut_angle_deg": round(float(one.cut_angle_deg[0]), 2),
            "thickness_mm": round(float(one.thickness_mm[0]), 4),
            "curvature_per_mm": round(float(one.curvature_per_mm[0]), 4),
            **{f"{layer}_per_mm3": round(float(one.density_per_mm3[0, k])) for k, layer in enumerate(LAYERS)},
        }


def area_rows(phantom: Phantom, middle: tuple[Surface, Surface]) -> Iterable[Row]:
    """Every area with its region, its size in either hemisphere and its laminar profile."""
    sizes = area_sizes_mm2(middle, AREA_COUNT)
    for index, profile in enumerate(phantom.brain.profiles):
        yield {
            "id": index + 1,
            "name": area_names()[index],
            "region": area_regions()[index],
            **{f"{side}_mm2": round(float(sizes[k, index]), 3) for k, side in enumerate(HEMISPHERES)},
            **{f"{layer}_share": round(float(profile.thickness[k]), 4) for k, layer in enumerate(LAYERS)},
            **{f"{layer}_per_mm3": round(float(profile.density_per_mm3[k])) for k, layer in enumerate(LAYERS)},
            **{f"{layer}_radius_um": round(float(profile.radius_um[k]), 3) for k, layer in enumerate(LAYERS)},
            **{f"{layer}_length_per_width": round(float(profile.elongation[k]), 3) for k, layer in enumerate(LAYERS)},
            **{f"{layer}_taper": round(float(profile.taper[k]), 3) for k, layer in enumerate(LAYERS)},
        }


def _write_gifti(folder: Path, side: str, name: str, surface: Surface) -> None:
    """A surface as GIFTI and, for the mid surface, the areas of its vertices as a GIFTI label file."""
    structure = {"AnatomicalStructurePrimary": f"Cortex{side.capitalize()}"}
    mesh = GiftiImage(
        darrays=[
            GiftiDataArray(surface.vertices_mm.astype(np.float32), intent="NIFTI_INTENT_POINTSET", meta=structure),
            GiftiDataArray(surface.triangles.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
        ]
    )
    nibabel.save(mesh, folder / f"{side}.{name}.surf.gii")
    if name != "mid":
        return
    table = GiftiLabelTable()
    for key, (area, rgb) in enumerate(
        zip(("???", *area_names()), [(0, 0, 0), *distinct_colours(AREA_COUNT)], strict=True)
    ):
        red, green, blue = (value / 255 for value in rgb)
        label = GiftiLabel(key, red, green, blue, 1.0 if key else 0.0)
        label.label = area
        table.labels.append(label)
    array = GiftiDataArray(surface.area.astype(np.int32), intent="NIFTI_INTENT_LABEL", meta=structure)
    nibabel.save(GiftiImage(darrays=[array], labeltable=table), folder / f"{side}.areas.label.gii")
