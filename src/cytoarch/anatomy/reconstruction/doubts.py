"""What a person should look at in a reconstructed brain, and why."""

from collections import Counter
from collections.abc import Mapping

from cytoarch.anatomy.reconstruction.placed import PlacedSection, Reconstruction
from cytoarch.anatomy.reconstruction.rigid import Rigid, apart_deg
from cytoarch.anatomy.reconstruction.settings import ReconstructionSettings

TORN_UM = 400.0
"""A section whose links disagree by more is not where they say."""


def doubts_of(
    brain: Reconstruction,
    section_id: str,
    rotation_deg: float,
    upright: Rigid,
    settings: ReconstructionSettings,
    stain: str,
    order: str,
    bare: bool,
) -> tuple[str, ...]:
    """The flags of a section, each a sentence with its figures."""
    one = brain[section_id]
    found = [unlinked(brain, one, settings, bare)] if not one.linked else []
    if one.placed_by == "links" or one.placed_by == "base":
        found += _about_its_place(one, rotation_deg, upright, settings)
    found += [stain, order]
    return tuple(text for text in found if text)


def unlinked(brain: Reconstruction, one: PlacedSection, settings: ReconstructionSettings, bare: bool) -> str:
    """Why a section has no links, with the best that was found."""
    if bare:
        return "not linked: it holds no tissue that stands out from the slide"
    links = brain.links_of[one.section_id]
    if not links:
        return "not linked: there is no other section to compare it with"
    if any(link.accepted for link in links):
        return "not linked: it fits some of its neighbours, but none of them is linked to the rest of the brain"
    best = max(links, key=lambda link: link.correlation)
    other = best.fixed if best.moving == one.section_id else best.moving
    return (
        f"not linked: of its neighbours {other} is the most like it, with correlation {best.correlation:.2f} and "
        f"overlap {best.dice:.2f}; {settings.least_correlation:g} and {settings.least_overlap:g} are needed"
    )


def _about_its_place(
    one: PlacedSection, rotation_deg: float, upright: Rigid, settings: ReconstructionSettings
) -> list[str]:
    found = []
    if one.flipped != upright.mirrored:
        found.append("mounted mirrored: it fits its neighbours only when it is flipped; the manifest states no flip")
    rigid = one.rigid
    turned = apart_deg(upright.angle_deg, rigid.angle_deg)
    if abs(turned) > settings.turned_deg:
        stated = f" beyond the {rotation_deg:g} that the manifest states" if rotation_deg else ""
        found.append(f"lies turned by {turned:.0f} degrees{stated}")
    if one.quality.disagreement_um > TORN_UM:
        found.append(f"its links disagree by {one.quality.disagreement_um:.0f} um")
    return found


def odd_stains(looks: Mapping[str, tuple[str, str, int]]) -> Mapping[str, str]:
    """Sections that look otherwise than most: (stain as stated, polarity, channels) by section -> in what way."""
    if not looks:
        return {}
    usual = [Counter(each).most_common(1)[0][0] for each in zip(*looks.values(), strict=True)]
    words = ("it is stained with {} where most are {}", "its tissue is {} on the slide where most are {}",
             "its scan has {} channel(s) where most have {}")  # fmt: skip
    return {
        name: "another stain: " + "; ".join(
            text.format(own, most) for text, own, most in zip(words, look, usual, strict=True) if own != most
        )
        for name, look in looks.items()
        if list(look) != usual
    }  # fmt: skip
