"""Twenty kills, each run going on with what the one before left: the content is that of an undisturbed run."""

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cytoarch.anatomy.tissue import Tissue, write_tissue
from cytoarch.brains import Brain, Section
from cytoarch.geometry import Grid
from cytoarch.images.layout import Pyramid
from cytoarch.images.pyramids import write_pyramid
from cytoarch.steps.sections import SECTION
from cytoarch.steps.tissue import TISSUE
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.drafts import ensure
from cytoarch.store.products import Work
from tests.tiny_transformer import tiny_transformer
from tests.verified import damaged

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("more flows")]

ROOT = Path(__file__).resolve().parent.parent.parent
KILLS = 20
SIZES = [(150, 170), (64, 64), (200, 130), (90, 250), (130, 130), (260, 140), (150, 150)]


def stored_brain(root: Path) -> BrainStore:
    """A brain of a few small sections with tissue in most of their shards."""
    store = BrainStore(root)
    sections = tuple(
        Section(brain_id="B1", section_id=f"s{place}", section_number=place, path="none.tif")
        for place in range(len(SIZES))
    )
    store.write_brain(Brain(brain_id="B1", sections=sections, label_table=None))
    rng, catalogue = np.random.default_rng(0), store.catalogue("B1")
    for section, size in zip(sections, SIZES, strict=True):
        pixels = rng.integers(0, 256, (1, *size), dtype=np.uint8)
        mask = np.ones((-(-size[0] // 16), -(-size[1] // 16)), dtype=bool)
        mask[8:, 8:] = False
        overview = rng.random(mask.shape, dtype=np.float32)

        def image(staging, pixels=pixels):
            layout = Pyramid(pixels.shape, pixels.dtype, 4.0, "mean")
            write_pyramid(
                staging, layout, lambda y, x, h, w: pixels[..., y : y + h, x : x + w], name="scan",
                own_attributes={"kind": "grey"},
            )  # fmt: skip
            return {"kind": "grey", "shape": pixels.shape, "dtype": str(pixels.dtype), "pixel_size_um": 4.0}

        def tissue(staging, mask=mask, overview=overview):
            write_tissue(staging, overview, Tissue(mask, 64.0, "dark", 0.5), Grid(mask.shape, 64.0, (0.0, 0.0)))
            return {}

        work = Work(1, {}, {})
        ensure(catalogue, SECTION.product(section.section_id), work, image)
        ensure(catalogue, TISSUE.product(section.section_id), work, tissue)
    return store


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A randomly initialised DINOv3 in a folder."""
    return tiny_transformer(tmp_path_factory.mktemp("vit"))


def embed(store: BrainStore, encoder: str, folder: Path, moments: list[str]) -> list[int]:
    """Exit codes of a process for every moment and of a last one that is left alone."""
    outcomes = folder / "outcomes"
    environment = {**os.environ, "PREFECT_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.flows.embed_and_die", str(store.root), encoder, str(outcomes), *moments]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=240
    )
    error = outcomes.with_suffix(".error")
    assert done.returncode == 0, done.returncode
    assert not error.exists(), error.read_text()
    return [int(code) for code in outcomes.read_text().split()]


@pytest.mark.long
def test_a_brain_whose_embedding_is_killed_twenty_times_is_the_undisturbed_one(tiny_encoder: str, tmp_path: Path):
    store = stored_brain(tmp_path / "store")
    undisturbed = BrainStore(tmp_path / "undisturbed")
    shutil.copytree(store.root, undisturbed.root)
    (tmp_path / "one").mkdir()
    assert embed(undisturbed, tiny_encoder, tmp_path / "one", ["together"]) == [0, 0], "two processes, half each"
    draw = random.Random(7)  # noqa: S311 - a schedule of kills is no secret
    latest = {"enter": 5, "write": 4, "rename": 8}  # soon enough for twenty runs to leave something to the last
    moments = [f"{kind}:{draw.randint(1, latest[kind])}" for kind in [*latest] * KILLS][:KILLS]
    (tmp_path / "many").mkdir()
    codes = embed(store, tiny_encoder, tmp_path / "many", moments)
    killed = codes[:-1].count(-signal.SIGKILL)
    assert codes[-1] == 0
    assert set(codes) == {0, -signal.SIGKILL}
    assert (killed, len(codes)) == (KILLS, KILLS + 1), "every one of them died before all was done"
    assert store.catalogue("B1").content_digest() == undisturbed.catalogue("B1").content_digest()
    assert damaged(store, "B1") == []
    assert len([one for one in store.catalogue("B1").records() if one.step == "embeddings"]) == len(SIZES)
    assert not list((store.brain_path("B1") / "staging").iterdir())
