"""Why a person should look at the tissue that was found, in plain words."""

from cytoarch.anatomy.outline import Outline
from cytoarch.anatomy.slide import Slide, border

FAINT = 8.0
"""Dense tissue differs from the slide by fewer standard deviations of its noise."""
CUT = 0.05
"""Share of the scan's edge that is tissue."""
DROPPED = 0.05
"""Area left out, as a share of the tissue's."""
INKED = 0.01
"""Ink left out, as a share of the tissue's area."""
CLEFTS = 0.03
"""Clefts opened, as a share of the tissue's area."""
EOSIN = "eosin beside another dye: grey and white matter are not told apart; draw white matter (tissue_path)"
WITHIN = "no slide is to be seen, cells lie everywhere: all was taken for tissue; draw the tissue if that is wrong"
USUAL_PIECES = 2
"""Two hemispheres."""
SECTION_MM = 2.0
"""A picture that shows less lies within a section rather than around one."""
BARE = 0.02
"""Share of the scan that is bare slide."""


def doubts_of(found: Outline, slide: Slide, across_mm: float, eosin: bool) -> tuple[str, ...]:
    """What is doubtful about an outline in a picture of so many mm, and about its classes where `eosin` hides them."""
    said = [f"only {across_mm:.1f} mm across: of a photomicrograph all is tissue (method whole)"]
    said = said if across_mm < SECTION_MM else []
    if not found.mask.any():
        return (*said, "no tissue found")
    cut = float(found.mask[border(found.mask.shape)].mean())
    if cut > CUT:
        said.append(f"tissue on {cut:.0%} of the picture's edge: cut off, or the slide was taken for tissue")
    bare = float(slide.bare[slide.scanned].mean())
    if bare < BARE:
        said.append(f"only {bare:.1%} of the scan is bare slide to compare with")
    if found.dense < FAINT * slide.noise:
        said.append("tissue hardly differs from the slide")
    if found.ink_share > INKED:
        said.append(f"ink of {found.ink_share:.0%} of the tissue's area was left out")
    elif found.dropped_share > DROPPED:
        said.append(f"small pieces of {found.dropped_share:.0%} of the tissue's area were left out")
    if found.cleft_share > CLEFTS:
        said.append(
            f"clefts of {found.cleft_share:.0%} of the tissue's area were opened: thin white matter may be lost"
        )
    if found.pieces > USUAL_PIECES:
        said.append(f"{found.pieces} pieces")
    if eosin:
        said.append(EOSIN)
    return tuple(said)
