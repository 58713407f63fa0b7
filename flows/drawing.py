"""Commands for what people draw: the window, and scribbles from and for other programs."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cytoarch.annotations.drawing import DrawnLabels
from cytoarch.annotations.exchange import Drawer, as_json, write_label_image
from cytoarch.annotations.scribbles import Annotation, Scribble, now
from cytoarch.brains import LabelTable, read_label_table
from cytoarch.errors import StoreError
from cytoarch.images.sections import IngestSettings
from cytoarch.steps.annotations import LATEST, Scribbled, imported, save_annotation
from cytoarch.steps.opened import OpenBrain, read_only
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import Place
from flows.places import DEFAULT_STORE
from flows.stages import held_brain


def draw(brain: str, *, author: str, encoder: str = "texture", store_path: Path = DEFAULT_STORE) -> int:
    """Open a brain in napari, to draw on it and see the map at once; needs `pip install 'cytoarch[napari]'`.

    Parameters
    ----------
    brain
        Brain in the store.
    author
        Who draws: every stroke carries this name.
    encoder
        What looks at the tissue: texture, lite0, dinov3:vitb16, ...
    store_path
        Folder of the store.

    """
    try:
        import napari

        from cytoarch.napari.opening import Opening
        from cytoarch.napari.widget import DrawWidget
    except ImportError as error:
        raise StoreError(f"the window needs napari and Qt ({error}): pip install 'cytoarch[napari]'") from None
    read_only(store_path, brain)  # one that is not there is said here, before a window opens
    viewer = napari.Viewer(title=f"cytoarch: {brain}")
    widget = DrawWidget(viewer)
    viewer.window.add_dock_widget(widget, name="Draw and map")
    widget.open(Opening(store_path, brain, author, encoder))
    napari.run()
    return 0


def import_annotations(
    brain: str,
    files: Annotated[list[Path], Parameter(consume_multiple=True)],
    *,
    author: str,
    label_table: Path | None = None,
    width_px: float = 10.0,
    store_path: Path = DEFAULT_STORE,
) -> int:
    """Bring drawings of other programs into the store as a new version of a person's annotations.

    Parameters
    ----------
    brain
        Brain in the store.
    files
        GeoJSON of QuPath, or label images (PNG, TIFF) on the pixels of the scan; each is named after its section, such
        as s0122.geojson.
    author
        Who drew them; what is in the store of the same author is kept, and these are added to it.
    label_table
        CSV file with columns id, name, colour; blank: the author's own classes, else the brain's label table.
    width_px
        Width of lines and points that state none (pixels of the scan).
    store_path
        Folder of the store.

    """
    with held_brain(store_path, brain) as opened:
        known = author in opened.catalogue.names("annotations")
        before = Scribbled.of(opened, author).open(Place(opened)) if known else None
        table = _table(opened, label_table, before)
        found: list[Scribble] = list(before.scribbles) if before else []
        rounds = before.rounds + 1 if before else 1
        for file in files:
            named = (one for one in (file.stem, file.name.split(".")[0]) if one in opened.rows)
            drawer = Drawer(next(named, file.stem), author, now(), rounds)
            found += imported(opened, file, table, drawer, width_px, IngestSettings())
        names = ", ".join(file.name for file in files)
        drawn = Annotation(
            brain_id=brain, author=author, table=table, scribbles=tuple(found), origin=f"imported: {names}"[:500]
        )
        version = save_annotation(opened, drawn)
    print(f"{brain}: {len(found)} scribbles of {author} on {len(drawn.section_ids)} section(s) are version {version}")
    return 0


def _table(brain: OpenBrain, label_table: Path | None, before: Annotation | None) -> LabelTable:
    """The classes that files are read with. Raises StoreError where nobody states any."""
    if label_table is not None:
        return _agreeing(read_label_table(label_table), label_table, before)
    table = before.table if before else brain.brain.label_table
    if table is None:
        raise StoreError(f"{brain.name}: nobody has named classes yet; give --label-table, a CSV with columns id, name")
    return table


def _agreeing(table: LabelTable, path: Path, before: Annotation | None) -> LabelTable:
    """A table in which every class that was drawn in before means the same. Raises StoreError where one does not."""
    used = {one.label for one in before.scribbles} if before else set()
    names = {one.id: one.name for one in table.labels}
    moved = [one for one in (before.table.labels if before else ()) if one.id in used and names.get(one.id) != one.name]
    if moved:
        told = ", ".join(f"{one.id} = {one.name}" for one in moved[:8])
        raise StoreError(f"{path}: earlier scribbles mean {told}; keep these ids and names, add others under new ids")
    return table


def export_annotations(
    brain: str,
    out: Path,
    *,
    author: str,
    version: str = LATEST,
    form: Literal["geojson", "png"] = "geojson",
    store_path: Path = DEFAULT_STORE,
) -> int:
    """Write a person's scribbles for other programs, a file a section.

    Parameters
    ----------
    brain
        Brain in the store.
    out
        Folder to write into.
    author
        Whose scribbles.
    version
        Which version; latest: the last one.
    form
        geojson: for QuPath, nothing is lost; png: label ids on the section's pixels.
    store_path
        Folder of the store.

    """
    opened = read_only(store_path, brain)
    annotation = Scribbled.of(opened, author, version).open(Place(opened))
    out.mkdir(parents=True, exist_ok=True)
    largest = max(one.id for one in annotation.table.labels)
    for section_id in annotation.section_ids:
        path = out / f"{section_id}.{form}"
        if form == "geojson":
            path.write_bytes(as_json(annotation, section_id))
            continue
        section = opened.rows[section_id]
        grid = SECTION.open(Place(opened, section)).grid
        write_label_image(path, DrawnLabels.of(annotation.of(section_id), grid, section.region_px), largest)
    print(f"{out}: {len(annotation.section_ids)} section(s) of {author}")
    return 0
