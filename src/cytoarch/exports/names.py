"""What files of an export are called."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cytoarch import __version__


@dataclass(frozen=True)
class Names:
    """Names of the files of a brain's export, relative to its folder."""

    brain_id: str
    naming: Literal["plain", "bids"]

    def of_section(self, section_id: str, kind: str, ending: str) -> str:
        """The file of a section's map.

        >>> Names("B01", "plain").of_section("s0122", "areas", "geojson")
        's0122.areas.geojson'
        >>> Names("B01", "bids").of_section("s0122", "areas", "geojson")
        'sub-B01/micr/sub-B01_sample-s0122_seg-areas_dseg.geojson'
        """
        if self.naming == "plain":
            return f"{section_id}.{kind}.{ending}"
        subject = f"sub-{_label(self.brain_id)}"
        return f"{subject}/micr/{subject}_sample-{_label(section_id)}_seg-{_label(kind)}_dseg.{ending}"

    def of_brain(self, kind: str, ending: str, suffix: str = "dseg") -> str:
        """A file of the whole brain.

        >>> Names("B01", "bids").of_brain("areas", "nii.gz")
        'sub-B01/micr/sub-B01_seg-areas_dseg.nii.gz'
        """
        if self.naming == "plain":
            return f"{self.brain_id}.{kind}.{ending}"
        subject = f"sub-{_label(self.brain_id)}"
        return f"{subject}/micr/{subject}_seg-{_label(kind)}_{suffix}.{ending}"

    def description(self) -> Mapping[str, Any] | None:
        """What `dataset_description.json` holds; None where names are plain."""
        if self.naming == "plain":
            return None
        return {
            "Name": f"cytoarch maps of {self.brain_id}",
            "BIDSVersion": "1.10.0",
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "cytoarch", "Version": __version__}],
        }


def _label(text: str) -> str:
    """A name as BIDS allows it in an entity: letters and digits."""
    return re.sub(r"[^A-Za-z0-9]", "", text)
