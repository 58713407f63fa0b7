"""A section that is found damaged while something is fitted to the whole brain costs only itself."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cytoarch.discovery.clusters import ClusterSettings
from cytoarch.learning.training import ProbeSettings
from cytoarch.sampling import UnreadableSectionError
from cytoarch.steps.running import make
from cytoarch.steps.sections import LABELS
from cytoarch.steps.step import Step, Stored
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.verification import verify_brain
from tests.cytoarch.steps.small_brain import TRAIN, Chain, SmallBrain, Steps

pytestmark = pytest.mark.xdist_group("steps")

OTHER = Chain(cluster=ClusterSettings(clusters=3, seed=1), train=ProbeSettings(seed=1))
"""Settings by which the small brain has not been mapped: what is fitted is fitted anew."""
DAMAGED = TRAIN[1]


def spoil(path: Path) -> None:
    """Change a file, which keeps its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)


def files_of(steps: Steps, stored: Stored[object], pattern: str) -> list[Path]:
    folder = steps.opened.catalogue.path(stored.product(DAMAGED))
    return sorted(path for path in folder.rglob(pattern) if path.is_file())


FITS: dict[str, Callable[[Steps], Step[object]]] = {
    "colours": lambda steps: steps.colour_fit,
    "clusters": lambda steps: steps.cluster_fit,
    "training": lambda steps: steps.training,
}
DAMAGES: dict[str, Callable[[Steps], list[Path]]] = {
    "pixels of the embeddings": lambda steps: files_of(steps, steps.embeddings.stored, "c/**/*"),
    "description of the embeddings": lambda steps: files_of(steps, steps.embeddings.stored, "zarr.json"),
    "pixels of the tissue": lambda steps: files_of(steps, TISSUE, "c/**/*"),
    "description of the tissue": lambda steps: files_of(steps, TISSUE, "zarr.json"),
    "pixels of the labels": lambda steps: files_of(steps, LABELS, "c/**/*"),
    "description of the labels": lambda steps: files_of(steps, LABELS, "zarr.json"),
}
CASES = [(fit, damage) for fit in FITS for damage in DAMAGES if fit == "training" or "labels" not in damage]


@pytest.mark.parametrize(("fit", "damage"), CASES)
def test_a_fit_goes_on_without_it_and_it_is_no_input(small: SmallBrain, fit: str, damage: str) -> None:
    changed = SmallBrain(small.folder, OTHER)
    with changed.opened() as opened:
        steps = Steps(changed, opened)
        step = FITS[fit](steps)
        opened.catalogue.forget(step.product())
        damaged = DAMAGES[damage](steps)
        assert damaged
        for path in damaged:
            spoil(path)
        record, made = make(step, opened)
        assert made
        assert set(opened.failed) == {DAMAGED}
        assert opened.failed[DAMAGED], "with the reason"
        assert not [one for one in record.inputs if f"/{DAMAGED}" in one]
        assert [one for one in record.inputs if f"/{TRAIN[0]}" in one]
    with changed.opened() as opened:
        assert not Steps(changed, opened).current(step), "the section may have been mended: it is tried again"
        assert make(step, opened) == (record, False), "and left out again: nothing else has changed"
        assert set(opened.failed) == {DAMAGED}


def test_once_it_is_healed_it_is_an_input_again(small: SmallBrain) -> None:
    changed = SmallBrain(small.folder, OTHER)
    with changed.opened() as opened:
        steps = Steps(changed, opened)
        for path in files_of(steps, steps.embeddings.stored, "c/**/*"):
            spoil(path)
        make(steps.cluster_fit, opened)
        assert set(opened.failed) == {DAMAGED}
        assert verify_brain(opened.store, "B1").faults
    with changed.opened() as opened:
        steps = Steps(changed, opened)
        steps.embed()
        record, made = make(steps.cluster_fit, opened)
        assert made
        assert not opened.failed
        assert [one for one in record.inputs if f"/{DAMAGED}" in one]


def test_a_brain_of_which_nothing_can_be_read_has_no_fit(small: SmallBrain, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = SmallBrain(small.folder, OTHER)
    with changed.opened() as opened:
        steps = Steps(changed, opened)

        def unreadable(_: Path) -> None:
            raise UnreadableSectionError("nobody", "is not of this brain")

        monkeypatch.setattr(type(steps.embeddings), "opened", unreadable)
        with pytest.raises(UnreadableSectionError, match="nobody"):
            make(steps.cluster_fit, opened)
