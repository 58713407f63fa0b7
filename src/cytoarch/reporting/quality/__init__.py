"""Which scans went wrong: figures and a picture of every section, and a page that puts the doubtful ones first."""

from cytoarch.reporting.quality.figures import sample_section, section_quality, shown_figures
from cytoarch.reporting.quality.flags import flags
from cytoarch.reporting.quality.page import QualityEntry, render_quality_page
from cytoarch.reporting.quality.picture import quality_picture

__all__ = [
    "QualityEntry",
    "flags",
    "quality_picture",
    "render_quality_page",
    "sample_section",
    "section_quality",
    "shown_figures",
]
