"""What of a brain's report is shown elsewhere: the page alone, the map as one picture, the table of classes."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cytoarch.reporting.alone import map_sheet, one_page
from cytoarch.steps.agreement import AgreementStep, parted
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.pictures import PICTURES_NAME, PicturesStep, Shown
from cytoarch.steps.report import CONFUSION_FILE, REPORT_NAME, ReportStep
from cytoarch.steps.report_scores import class_rows
from cytoarch.steps.sources import open_head, sections_with
from cytoarch.steps.step import Place, Stored
from cytoarch.steps.training import training_of
from cytoarch.store.products import Product

MAP_FILE = "map.png"
_MAPS = ("parcellation", "clusters", "embeddings")
"""What the captions of pictures of maps begin with, the best first."""
_COLUMNS = ("name", "support", "precision", "recall", "f1", "iou", "hd95_um", "assd_um", "missing")


def report_files(brain: OpenBrain, shown: Shown, training: str | None) -> dict[str, bytes]:
    """Name -> content: the report as one page, the map as one picture, confusion and classes where there are scores."""
    product = Product(ReportStep.step, REPORT_NAME)
    files: dict[str, bytes] = {}
    if brain.catalogue.record(product) is not None:
        index = ReportStep.opened(brain.catalogue.path(product))
        files["report.html"] = one_page(index)
        confusion = index.parent / CONFUSION_FILE
        if confusion.is_file():
            files[CONFUSION_FILE] = confusion.read_bytes()
    pictures = map_pictures(brain)
    if pictures:
        files[MAP_FILE] = pictures
    rows = scored_classes(brain, shown, training)
    if rows:
        files["classes.csv"] = _table(rows)
    return files


def map_pictures(brain: OpenBrain) -> bytes:
    """One PNG of the map of some sections, evenly through the brain; empty: none was drawn."""
    stored = Stored(PicturesStep, PICTURES_NAME)
    found = []
    for section in sections_with(brain, stored):
        place = Place(brain, section)
        named: Mapping[str, str] = stored.record(place).facts["pictures"]
        best = next((file for what in _MAPS for caption, file in named.items() if caption.startswith(what)), None)
        if best is not None:
            found.append((section.section_id, stored.open(place) / best))
    return map_sheet(found) if found else b""


def scored_classes(brain: OpenBrain, shown: Shown, training: str | None) -> Sequence[Mapping[str, Any]]:
    """A row per class with its figures as the report shows them: of held-out embeddings, else of the map."""
    held_out = training_of(brain, training)[1].metrics.get("held_out") if training else None
    if shown.parcellation is None or shown.model_digest is None:
        return class_rows(None, held_out, None)
    card = open_head(brain.store, shown.model_digest).card
    stored = Stored(AgreementStep, shown.parcellation)
    counted = {one.section_id: stored.record(Place(brain, one)).facts for one in sections_with(brain, stored)}
    unseen, learned = parted(card, brain.brain_id, counted)
    return class_rows(card, held_out, unseen or (None if held_out else learned))


def _table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
