"""Commands that prepare what flows work on: a manifest, a phantom brain, weights."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cytoarch.brains import LABEL_TABLE_FILE
from cytoarch.drafting import draft_label_table, draft_manifest
from cytoarch.phantoms.writing import SIZES, PhantomRequest, write_phantom
from cytoarch.reporting.phantoms import draw_pictures
from flows.console import EXIT_OK, bars, counted, say, stderr_console
from flows.places import DEFAULT_STORE


def manifest(folder: Path, *, brain: str = "", output: Path | None = None, labels_folder: Path | None = None) -> int:
    """Draft a manifest from a folder of scans, and a table of the labels in a folder; a person completes both.

    Parameters
    ----------
    folder
        Folder of scans.
    brain
        Name of the brain all of them belong to; blank: left for a person.
    output
        Manifest to write; default: manifest.csv in the folder, or in the one that holds it and the labels' folder.
    labels_folder
        Folder of label images named like the scans; a '?' marks those whose name is not quite the same. What they
        hold is listed in labels.csv beside the manifest, unless there is one.

    """
    console = stderr_console()
    target = output or _home(folder, labels_folder) / "manifest.csv"
    table = target.with_name(LABEL_TABLE_FILE)
    has_table = table.exists()
    with bars(console) as listener:
        root, remarks = draft_manifest(
            folder, target, labels_folder, brain, lambda done, total: listener("read headers", done, total)
        )
        count = 0
        if labels_folder is not None and not has_table:
            count, more = draft_label_table(
                labels_folder, table, lambda done, total: listener("read labels", done, total)
            )
            remarks += more
    for remark in remarks:
        say(console, "look at", remark)
    print(f"draft     {target}")
    if count:
        print(f"labels    {table}: {counted(count, 'label')}; name them, and give a group or colour where you like")
    print("complete  brain_id, blank pixel sizes, and what else you know; remove each '?' you have checked")
    command = ["python", "-m", "flows", "map-brain", "--manifest-path", str(target)]
    command += [] if target.parent.resolve() == root else ["--scans-path", str(root)]
    print(f"then      {shlex.join(command)}")
    return EXIT_OK


def _home(scans_folder: Path, labels_folder: Path | None) -> Path:
    """Where a manifest finds scans and labels by itself: above both folders where these lie side by side."""
    parent = scans_folder.resolve().parent
    is_beside = labels_folder is not None and labels_folder.resolve().parent == parent
    if not is_beside:
        return scans_folder
    return scans_folder.parent if scans_folder.parent.resolve() == parent else parent  # "." is its own parent


def phantom(
    folder: Path,
    *,
    brain: str = "P01",
    pictures: Annotated[bool, Parameter(negative="--no-pictures")] = True,
    request: Annotated[PhantomRequest, Parameter(name="*")] = PhantomRequest(),
) -> int:
    """Write a phantom brain: scans, label images, label table and manifest, with the truth beside them.

    Parameters
    ----------
    folder
        New folder to write into, or one that holds a phantom.
    brain
        Name of the brain.
    pictures
        Draw the sections beside their areas and layers, a close-up, and the folded surface.
    request
        What to write.

    """
    with bars(stderr_console()) as listener:
        path = write_phantom(folder, brain, request, lambda done, total: listener("phantom", done, total))
        drawn = draw_pictures(folder, lambda done, total: listener("pictures", done, total)) if pictures else ()
    written = len(path.read_text(encoding="utf-8").splitlines()) - 1
    asked = request.sections or SIZES[request.size].sections
    if written < asked:
        lost = f"{written} of {asked} sections: the others were lost, as sections are (--nuisances.missing)"
        say(stderr_console(), "note", lost)
    print(f"manifest  {path}")
    print(f"truth     {folder / 'truth'}")
    for picture in drawn:
        print(f"picture   {picture}")
    return EXIT_OK


def cut_atlas(
    manifest_path: Path,
    anchorings_path: Path,
    volume_path: Path,
    *,
    brain_id: str,
    store_path: Path = DEFAULT_STORE,
    axes: str = "",
    ontology_path: Path | None = None,
    level: int | None = None,
    folder: str = "atlas",
) -> int:
    """Cut an atlas along the sections of a brain: label images, their table, and a manifest that names them automatic.

    Parameters
    ----------
    manifest_path
        The manifest of the brain; the new one lies beside it.
    anchorings_path
        Anchorings of QuickNII, DeepSlice, VisuAlign or ABBA, by the file names of the scans or by section.
    volume_path
        Label volume of the atlas, NIfTI or NRRD.
    brain_id
        Brain in the store: its sections have been ingested.
    store_path
        Folder of the store.
    axes
        Where the axes of the volume's file run, such as PIR for the Allen CCF; blank: as the file says.
    ontology_path
        Structures of the atlas: JSON of Allen's API, a table with id, name, parent_id, or ITK-SNAP's label
        descriptions (.txt).
    level
        Level of the ontology to cut at, 0 is the root; blank: as fine as the volume.
    folder
        Name of the folder of label images, beside the manifest.

    """
    from cytoarch.steps.atlas_labels import cut_brain

    made = cut_brain(
        manifest_path, anchorings_path, volume_path, brain_id, store_path, axes, ontology_path, level, folder
    )
    for one in made.without:
        say(stderr_console(), "look at", f"{one} has no anchoring in {anchorings_path.name}")
    print(f"labels    {made.sections} sections, {made.structures} structures, in {made.folder}")
    print(f"manifest  {made.manifest_path}")
    then = ["python", "-m", "flows", "map-brain", "--manifest-path", str(made.manifest_path)]
    print(f"then      {shlex.join([*then, '--label-table-path', str(made.table_path)])}")
    return EXIT_OK


def convert_weights(
    source: Path,
    target: Path,
    *,
    table: str,
    model: Literal["cytonet_r50", "cytonet_r50_vit"] = "cytonet_r50",
    config_path: Path | None = None,
    prefix: str = "",
    statistics: Literal["lvd1689m", "sat493m"] = "lvd1689m",
) -> int:
    """Turn a plain PyTorch state dict into a model folder: safetensors and config.json.

    Parameters
    ----------
    source
        File of torch.save that holds tensors only; one that would run code is refused.
    target
        New folder to write.
    table
        Which name becomes which: dinov3 (Meta's vision transformers), torchvision-r50, cytonet (our own names), or
        a CSV file with columns from, to. Every tensor must have its place.
    model
        The CytoNet to make; dinov3 needs none.
    config_path
        JSON file with the sizes of a CytoNet that is not the published one.
    prefix
        What the names stand under, such as state_dict. or module.
    statistics
        Images a DINOv3 model was trained on: photographs (lvd1689m) or satellite images (sat493m).

    """
    from cytoarch.encoders import conversion

    made = conversion.convert_weights(
        source, target, table, model=model, config_path=config_path, prefix=prefix, statistics=statistics
    )
    for name in made.left_out:
        say(stderr_console(), "left out", name)
    print(f"folder    {made.folder} ({made.tensor_count} tensors)")
    print(f"digest    {made.digest}")
    print(f"encoder   {made.encoder_id}")
    return EXIT_OK
