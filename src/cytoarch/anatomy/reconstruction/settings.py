"""How sections are put together to a brain."""

from typing import ClassVar, Literal

from pydantic import Field

from cytoarch.settings import Settings


class ReconstructionSettings(Settings):
    """How sections are linked, turned and moved. Sizes are those of the overviews, which tissue was found on."""

    CONDUCT: ClassVar[tuple[str, ...]] = ()
    OF_LINKS: ClassVar[tuple[str, ...]] = (
        "reach",
        "least_inliers",
        "least_inlier_share",
        "flip_ratio",
        "flip_margin",
        "least_correlation",
        "least_overlap",
    )
    """What decides how two sections are linked, and whether; all else decides what is made of the links."""

    base_section: str = Field(
        examples=["s0120"],
        default="",
        description="Section that stays where it is; blank: the middle one of those that are linked.",
    )
    reach: int = Field(
        title="Sections ahead that are linked",
        default=3,
        ge=1,
        le=10,
        description="Sections ahead that each one is linked to.",
    )
    find_mirrored: bool = Field(
        default=True, description="Look for sections that were mounted mirrored where the manifest states no flip."
    )
    slides: Literal["believed", "ignored"] = Field(
        title="How sections lie on their slides",
        default="believed",
        description="believed: tells slow drift, as far as sections were mounted alike, which is measured; ignored: "
        "neighbours alone decide.",
    )
    sizes: Literal["evened", "kept"] = Field(
        title="Sections that shrank more or less",
        default="evened",
        description="evened: a section that is larger or smaller than its neighbours would have it is brought to the "
        "usual size, unless a person placed it or too many beside it are lost; kept: sections keep their sizes.",
    )
    spacing_um: float | None = Field(
        title="Spacing of section numbers (um)",
        examples=[20.0],
        default=None,
        gt=0,
        le=100_000,
        description="From one section number to the next (um); blank: the manifest's position, or thickness.",
    )
    least_inliers: int = Field(
        title="Fewest features that link two sections",
        default=12,
        ge=3,
        le=1000,
        description="Fewest matched features that make a link.",
    )
    least_inlier_share: float = Field(
        title="Least share of matching features that link",
        default=0.1,
        ge=0,
        le=1,
        description="Least share of them among all matches.",
    )
    flip_ratio: float = Field(
        title="Features that decide on a flip (times)",
        default=1.5,
        ge=1,
        le=10,
        description="So many times the inliers of the other one decide on a flip.",
    )
    flip_margin: float = Field(
        title="Correlation that decides on a flip",
        default=0.05,
        ge=0,
        le=1,
        description="So much more correlation than the other one decides on a flip.",
    )
    least_correlation: float = Field(
        title="Least correlation of linked sections",
        default=0.45,
        ge=0,
        le=1,
        description="Least correlation of two aligned overviews that makes a link.",
    )
    least_overlap: float = Field(
        title="Least overlap of linked sections",
        default=0.5,
        ge=0,
        le=1,
        description="Least Dice overlap of tissue that makes a link.",
    )
    turned_deg: float = Field(
        title="Turn that is flagged (degrees)",
        default=30.0,
        gt=0,
        le=180,
        description="Sections that lie turned by more are flagged (degrees).",
    )
    order_gain: float = Field(
        title="Correlation elsewhere that is flagged",
        default=0.1,
        ge=0,
        le=2,
        description="So much more correlation elsewhere makes a section seem out of order.",
    )

    @property
    def of_links(self) -> "ReconstructionSettings":
        """The same as far as links go, all else as by default."""
        return ReconstructionSettings(**self.model_dump(include=set(self.OF_LINKS)))
