"""Borders along the cortex of a brain."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from prefect import flow
from pydantic import Field

from cytoarch.settings import Settings
from cytoarch.steps.borders import BorderSettings, BordersStep
from cytoarch.steps.depth import DepthStep
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.points import PointsStep
from cytoarch.steps.profile_borders import BordersPictureStep, ProfileBorderSettings, ProfileBordersStep
from cytoarch.steps.sources import require_stored, sections_with
from cytoarch.steps.step import Facts, Place, Step
from flows.parameters import RunSettings, StoredBrain
from flows.stages import Summary, final_state, held_brain, run_name, run_steps, skipping, workers
from tasks.cancelling import HOOKS

Way = Literal["embeddings", "profiles"]


class BorderChoice(Settings):
    """Which borders are found, and in what."""

    by: tuple[Way, ...] = Field(
        default=("embeddings", "profiles"),
        min_length=1,
        max_length=2,
        description="embeddings: of points along the cortex (trace-cortex, embed-points); profiles: of how much stain "
        "there is, from the surface to the white matter (trace-cortex).",
    )
    points: str = Field(default="", max_length=64, description="Name of the embedded points; blank: the only one.")
    depth: str = Field(
        default="", max_length=64, description="Kind of depth profiles are taken by; blank: the only one."
    )


@flow(name="find-borders", flow_run_name=run_name("borders"), **HOOKS)
def find_borders(
    brain: StoredBrain,
    choose: BorderChoice = BorderChoice(),
    find: BorderSettings = BorderSettings(),
    profiles: ProfileBorderSettings = ProfileBorderSettings(),
    skip: tuple[str, ...] = (),
    run: RunSettings = RunSettings(),
) -> Summary:
    """Find borders along the cortex of every section: where embeddings change, and where profiles of the stain do.

    Where there are labels, both are held against the labels' borders.

    Args:
        brain: The brain in the store.
        choose: What borders are found in.
        find: How borders of embeddings are told from chance.
        profiles: How profiles are taken across the cortex, and compared (Schleicher et al., 1999).
        skip: Sections to leave out.
        run: How the work is spread.

    """
    with held_brain(brain.store_path, brain.brain_id) as opened, skipping(opened, skip), workers(run) as runner:
        by_embeddings = _by_embeddings(opened, choose, find) if "embeddings" in choose.by else None
        by_profiles = _by_profiles(opened, choose, profiles) if "profiles" in choose.by else None
        made = 0
        notes: dict[str, str] = {}
        found: dict[str, Step[Any]] = {}
        if by_embeddings is not None:
            sections = sections_with(opened, by_embeddings.points)
            made += run_steps("borders", runner, opened, [by_embeddings], run, sections)
            found["embeddings"] = by_embeddings
        if by_profiles is not None:
            sections = sections_with(opened, by_profiles.depth)
            made += run_steps("profiles", runner, opened, [by_profiles], run, sections)
            found["profiles"] = by_profiles
        picture = BordersPictureStep.of(by_embeddings, by_profiles)
        shown = {one.section_id: one for step in found.values() for one in sections_with(opened, step.stored)}
        in_order = [one for one in opened.sections if one.section_id in shown]
        made += run_steps("draw borders", runner, opened, [picture], run, in_order)
        for name, step in found.items():
            facts = [step.stored.record(Place(opened, one)).facts for one in sections_with(opened, step.stored)]
            notes |= _told(name, facts)
            notes[f"tables of {name}"] = str(opened.catalogue.folder / "derived" / step.step / step.name)
        notes["pictures"] = str(opened.catalogue.folder / "derived" / picture.step / picture.name)
        return final_state(Summary(opened.brain_id, made, dict(opened.failed), notes))


def _by_embeddings(brain: OpenBrain, choose: BorderChoice, find: BorderSettings) -> BordersStep:
    hint = "Run trace-cortex and embed-points, or name one of them (--choose.points); --choose.by profiles needs none"
    return BordersStep.of(require_stored(PointsStep, Place(brain), choose.points, hint), find)


def _by_profiles(brain: OpenBrain, choose: BorderChoice, find: ProfileBorderSettings) -> ProfileBordersStep:
    hint = "Run trace-cortex, or name one of them (--choose.depth)"
    return ProfileBordersStep.of(require_stored(DepthStep, Place(brain), choose.depth, hint), find)


def _told(name: str, facts: Sequence[Facts]) -> dict[str, str]:
    """What a person is told of borders: how many, and how they lie beside those of the labels."""
    borders, lines = (sum(one[key] for one in facts) for key in ("borders", "lines"))
    notes = {f"found by {name}": f"{borders} on {lines} stretches"}
    against = [one["against"] for one in facts if "against" in one]
    sums = {key: float(np.sum([one[key] for one in against])) for key in against[0]} if against else {}
    if not sums:
        return notes
    known, found = sums["known"], sums["found"]
    reaches = [one["near_mm"] for one in facts if one.get("near_mm")]
    near = f"within {np.median(reaches):.2g} mm" if reaches else "at the same points or next to them"
    if known:
        rate, chance = sums["hit"] / known, sums["hit_by_chance"] / known
        notes[f"hit rate of {name}"] = f"{rate:.2f} of {known:.0f} borders of labels, {near} (at random {chance:.2f})"
    if found:
        rate, chance = sums["false"] / found, sums["false_by_chance"] / found
        notes[f"false rate of {name}"] = f"{rate:.2f} of {found:.0f} found (at random {chance:.2f})"
    return notes
