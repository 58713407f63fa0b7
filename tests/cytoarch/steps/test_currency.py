"""Which products are no longer current when something they are made from changes: those, and no others."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cytoarch.anatomy.tissue import TissueSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.parcellation.smoothing import SmoothSettings
from cytoarch.steps.known_tokens import KnownTokensStep
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import MissingInputError, Place, Step, is_current
from cytoarch.steps.tissue import TISSUE, TissueStep
from tests.cytoarch.steps.small_brain import (
    CORTEX,
    IDS,
    TOKENS,
    WHITE_MATTER,
    Chain,
    SmallBrain,
    Steps,
    labels_of,
    scan_of,
)

pytestmark = pytest.mark.xdist_group("steps")


def parts(steps: Steps) -> dict[str, Step[Any]]:
    """The steps after ingestion by what they are called here."""
    probabilities, parcellations = steps.parcellation
    return {
        "embeddings": steps.embeddings,
        "colour fit": steps.colour_fit,
        "colours": steps.colours,
        "training": steps.training,
        "probabilities": probabilities,
        "parcellations": parcellations,
        "agreement": steps.agreement,
        "familiarity": steps.familiarity,
        "cluster fit": steps.cluster_fit,
        "clusters": steps.clusters,
    }


def still_current(small: SmallBrain) -> dict[str, list[str]]:
    """By step the sections for which there is nothing to do."""
    with small.opened() as opened:
        steps = Steps(small, opened)
        return {name: steps.current(step) for name, step in parts(steps).items()}


def whole(step: str) -> list[str]:
    return ["brain"] if step in ("colour fit", "training", "cluster fit") else list(IDS)


def assert_outdated(found: dict[str, list[str]], *steps: str) -> None:
    """That these steps have something to make for every section, and the others for none."""
    assert found == {name: [] if name in steps else whole(name) for name in found}


def test_nothing_is_to_do_where_nothing_changed(mapped: SmallBrain) -> None:
    assert_outdated(still_current(mapped))


def test_labels_that_changed_outdate_the_training_and_what_is_counted_against_them_and_no_embedding(
    small: SmallBrain,
) -> None:
    swapped = np.choose(labels_of() // 3, [0, WHITE_MATTER, CORTEX]).astype(np.uint8)
    Image.fromarray(swapped).save(small.scans / "s1.png")
    with small.opened() as opened:
        assert Steps(small, opened).each(*small.ingestion()).count("made") == 1
    found = still_current(small)
    others = [one for one in IDS if one != "s1"]
    assert found.pop("training") == []
    assert (found.pop("agreement"), found.pop("clusters")) == (others, others)
    assert_outdated(found)


@pytest.mark.parametrize(
    ("change", "outdated"),
    [
        ({"smooth": SmoothSettings(weight=0.5)}, ["parcellations"]),
        ({"train": ProbeSettings(regularisation=2.0)}, ["training"]),
        ({"train": ProbeSettings(seed=1)}, ["training"]),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_a_setting_outdates_the_step_that_it_belongs_to(
    mapped: SmallBrain, change: dict[str, Any], outdated: list[str]
) -> None:
    assert_outdated(still_current(replace(mapped, chain=Chain(**change))), *outdated)


def test_another_tissue_outdates_all_that_is_drawn_in_it_even_where_embeddings_come_out_the_same(
    small: SmallBrain,
) -> None:
    """Tiles that touch tissue are computed whole: the mask inside a tile decides no embedding, but what is shown."""
    finer = replace(small, chain=Chain(tissue=TissueSettings(pixel_size_um=32.0)))
    with finer.opened() as opened:
        steps = Steps(finer, opened)
        product = steps.embeddings.product("s1")
        before = opened.catalogue.record(product)
        assert set(steps.each(TissueStep(finer.chain.tissue))) == {"made"}
        steps.each(steps.embeddings)
        after = opened.catalogue.record(product)
        assert before is not None
        assert after is not None
        assert (before.digest, before.fingerprint != after.fingerprint) == (after.digest, True)
    drawn = [
        "colour fit",
        "colours",
        "scale",
        "training",
        "probabilities",
        "agreement",
        "familiarity",
        "cluster fit",
        "clusters",
    ]
    found = still_current(finer)
    assert found.pop("parcellations") == [], "the probabilities are older than their tissue"
    assert_outdated(found, *drawn)


def test_tissue_of_an_older_scan_is_refused(small: SmallBrain) -> None:
    """Whatever reads the tissue is told to find it again, and does not take what is there."""
    import tifffile

    tifffile.imwrite(small.scans / "s1.tif", scan_of("s1")[::-1], metadata=None)
    with small.opened() as opened:
        steps = Steps(small, opened)
        steps.each(*small.ingestion()[:2])
        place = Place(opened, opened.rows["s1"])
        SECTION.record(place)
        for step in (steps.embeddings, steps.parcellation[0], steps.colours, steps.clusters):
            with pytest.raises(MissingInputError, match=r"the \w+ \S+ of section s1 were made from an older section"):
                step.work(place)
        with pytest.raises(MissingInputError, match="the tissue slide of section s1 were made from an older section"):
            TISSUE.record(place)
        assert TISSUE.record(Place(opened, opened.rows["s2"]))


def test_how_a_scan_is_shown_does_not_decide_what_is_known_of_tokens_and_its_side_does(mapped: SmallBrain) -> None:
    def current(**stated: str) -> bool:
        rows = list(mapped.sections)
        rows[1] = rows[1].model_copy(update=stated)
        with mapped.opened() as opened:
            opened.brain = opened.brain.model_copy(update={"sections": tuple(rows)})
            step = KnownTokensStep.of(Steps(mapped, opened).cluster_fit, TOKENS)
            return is_current(step, Place(opened))

    assert current()
    assert current(flip="vertical", reason="seen")
    assert not current(hemisphere="left")
    assert not current(stain="Nissl")
