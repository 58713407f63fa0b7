"""Every hostile or damaged scan is refused with one clear error, or read right; the sections beside it never notice.

A sample runs each time; CYTOARCH_FULL=1 runs the whole corpus.
"""

import contextvars
import csv
import os
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest

from cytoarch.brains import Section, read_manifest
from cytoarch.containment import Contained
from cytoarch.errors import ManifestError, ScanError
from cytoarch.images.sections import IngestSettings
from cytoarch.paths import confined
from cytoarch.steps import sections
from cytoarch.steps.opened import OpenBrain, open_brain
from cytoarch.steps.running import make_section
from cytoarch.steps.sections import LABELS, SECTION, LabelsStep, ManifestFile, SectionStep
from cytoarch.steps.step import Step
from cytoarch.steps.tissue import QualityStep, TissueStep
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.records import Committed
from tests.hostile.corpus import SAMPLE, Case, make_corpus, plans
from tests.hostile.impostors import refused_paths
from tests.hostile.plans import Fate
from tests.hostile.sound import Array

pytestmark = pytest.mark.xdist_group("hostile")

FULL = os.environ.get("CYTOARCH_FULL") == "1"
MEMORY_GB = 1.0
STALL_S = 15.0
MOST_S = 60.0
"""No case takes longer."""
PATIENCE_S = {"name-pipe": 5.0}
"""Cases that are waited for less long, since they are done at once or never."""

PIXELS_STAY = ("lie-one-grey", "odd-all-white", "odd-all-black", "odd-one-pixel", "odd-thin")
"""Their pixels are sound and committed; only the search for tissue fails."""

NAMES = [plan.name for plan in plans()] if FULL else list(SAMPLE)
_ONCE_SOUND = ("cut-", "flip-", "store-lost", "store-folder-for", *(("sound-",) if FULL else ()))
DAMAGED = [name for name in NAMES if name.startswith(_ONCE_SOUND)]
"""Cases whose undamaged scan is known; in the full corpus undamaged ones too."""


@dataclass(frozen=True)
class Found:
    """What came of a case."""

    fate: Fate | None
    """None: it ended the run, or did not end in time."""
    text: str
    """The error, or what ended the run."""
    seconds: float
    peak_bytes: int
    """Most memory a child had resident."""
    strays: frozenset[str]
    """Files that appeared, changed or vanished beside the store."""


@dataclass
class Workplace:
    """A folder with scans and a store, the brain open for writing, where every case is ingested once."""

    root: Path
    brain: OpenBrain
    steps: tuple[Step[Any], ...]
    by_name: Mapping[str, Case]
    found: dict[str, Found]

    @property
    def catalogue(self) -> Catalogue:
        """What another run would see."""
        return self.brain.store.catalogue("H01")

    def section(self, name: str) -> Section:
        return self.brain.rows[name]

    def record(self, name: str) -> Committed | None:
        return self.catalogue.record(SECTION.product(name))

    def labels(self, name: str) -> Array:
        """The ids (y, x) that are stored for a section."""
        return LabelsStep.opened(self.catalogue.path(LABELS.product(name))).levels[0].pixels()

    def of(self, name: str) -> Found:
        """What comes of a case."""
        if name not in self.found:
            self.found[name] = self._ingested(name)
        return self.found[name]

    def _ingested(self, name: str) -> Found:
        before = files_beside(self.root)
        begun = time.monotonic()
        with PeakMemory() as memory:
            failed, text = within(PATIENCE_S.get(name, MOST_S), lambda: self.ingest(self.section(name)))
        seconds = time.monotonic() - begun
        after = files_beside(self.root)
        strays = frozenset(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
        fate: Fate | None = None
        if failed is not None:
            fate = "refused" if failed else "read" if self._is_right(name) else "wrong"
        return Found(fate, text, seconds, memory.peak_bytes, strays)

    def ingest(self, section: Section) -> tuple[bool, str]:
        """Whether a section failed, and why."""
        outcome = make_section(self.steps, self.brain, section)
        return outcome.status == "failed", outcome.reason

    def _is_right(self, name: str) -> bool:
        plan = self.by_name[name].plan
        if plan.pixels is None:
            return False
        folder = self.catalogue.path(SECTION.product(name))
        expected, stored = plan.pixels(), SectionStep.opened(folder).levels[0].array
        if stored.shape != expected.shape or stored.dtype != expected.dtype:
            return False
        rows = range(0, expected.shape[1], 1024)
        if plan.labels is not None and not np.array_equal(self.labels(name), plan.labels()):
            return False
        return all(np.array_equal(stored[:, y : y + 1024], expected[:, y : y + 1024]) for y in rows)


def within(seconds: float, work: Callable[[], tuple[bool, str]]) -> tuple[bool | None, str]:
    """What work gives, or None and what is wrong: it raised, or is not done in time."""
    results: list[tuple[bool | None, str]] = []
    context = contextvars.copy_context()  # it knows which lock is held

    def run() -> None:
        try:
            results.append(context.run(work))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at
            results.append((None, f"{type(error).__name__}: {error}"))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return results[0] if results else (None, f"not done after {seconds:g} s")


class PeakMemory:
    """The most memory that a child process of this one had resident, as the kernel counts it."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self._look()
        self._look()

    def _look(self) -> None:
        for listing in Path("/proc/self/task").glob("*/children"):
            for pid in _text(listing).split():
                if "cytoarch.containment" in _text(Path(f"/proc/{pid}/cmdline")):
                    match = re.search(r"VmHWM:\s*(\d+) kB", _text(Path(f"/proc/{pid}/status")))
                    self.peak_bytes = max(self.peak_bytes, 1024 * int(match.group(1)) if match else 0)


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:  # it has just ended
        return ""


def files_beside(root: Path) -> dict[str, tuple[int, int]]:
    """Size and time of everything below a folder but for the store; folders may be deeper than Python calls itself."""
    found = {}
    folders = [str(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.path == str(root / "store"):
                    continue
                stat = entry.stat(follow_symlinks=False)
                found[entry.path] = (stat.st_size, stat.st_mtime_ns)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return found


def write_manifest(path: Path, rows: list[dict[str, str]]) -> Path:
    columns = ["brain_id", "section_number", "section_id", "path", "pixel_size_um", "labels", "sha256"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({"brain_id": "H01", "section_number": number, **row} for number, row in enumerate(rows, 1))
    return path


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The corpus, one row of the manifest for every case, and a brain that is locked for writing."""
    root = tmp_path_factory.mktemp("hostile")
    made = make_corpus(root / "scans", NAMES)
    manifest = write_manifest(root / "manifest.csv", [case.row for case in made])
    table = root / "labels.csv"
    table.write_text("id,name\n1,A\n", encoding="utf-8")
    stated = read_manifest(manifest, root / "scans", table)[0]
    for folder in ("here", "tmp", "store"):
        (root / folder).mkdir()
    settings = IngestSettings(memory_gb=MEMORY_GB, stall_s=STALL_S, threads=1)
    steps = (
        SectionStep(ManifestFile(root / "scans", "path"), ingest=settings),
        LabelsStep(ManifestFile(root / "scans", "labels"), ingest=settings),
        TissueStep(),
        QualityStep(),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(root / "tmp"))
        patch.setenv("TMPDIR", str(root / "tmp"))
        patch.chdir(root / "here")
        children = Contained()
        patch.setattr(sections, "containment", lambda: children)
        with open_brain(root / "store", stated) as brain:
            yield Workplace(root, brain, steps, {case.name: case for case in made}, {})
        children.close()
    subprocess.run(["rm", "-rf", root / "scans"], check=True)  # which pytest could not: a folder in it is too deep


@pytest.mark.parametrize("name", NAMES)
def test_a_case_is_read_right_or_refused_as_it_should_be(workplace: Workplace, name: str) -> None:
    found = workplace.of(name)
    assert found.fate in workplace.by_name[name].plan.allowed, found.text
    assert found.seconds < MOST_S
    assert found.peak_bytes < MEMORY_GB * 1e9
    assert not found.strays
    record = workplace.record(name)
    if found.fate == "refused":
        assert_refused(workplace, name, found.text)
    else:
        assert record is not None
        assert record.facts["pixel_size_um"] == workplace.by_name[name].plan.found_um


def assert_refused(workplace: Workplace, name: str, text: str) -> None:
    """The error is one clear sentence about the file, and nothing is committed."""
    plan = workplace.by_name[name].plan
    file = plan.columns.get("labels", plan.file)
    assert file in text or name in PIXELS_STAY  # where tissue is looked for, in the store, no file is known any more
    assert "Traceback" not in text
    assert len(text) < 500 + 2 * len(str(workplace.root / "scans" / file))
    if plan.kind == "label":  # the section itself is sound, and kept
        assert workplace.catalogue.record(LABELS.product(name)) is None
        return
    if name in PIXELS_STAY:
        return
    assert workplace.record(name) is None
    assert not workplace.catalogue.path(SECTION.product(name)).exists()
    assert not [record for record in workplace.catalogue.records() if record.section == name]


@pytest.mark.parametrize("name", DAMAGED)
def test_the_checksum_of_the_undamaged_scan_catches_every_damage(workplace: Workplace, name: str) -> None:
    case = workplace.by_name[name]
    digest = case.sha256
    section = workplace.section(name).model_copy(update={"section_id": f"{name}.sum", "sha256": digest})
    failed, text = within(MOST_S, lambda: workplace.ingest(section))
    assert failed is (case.plan.kind != "sound"), text
    if failed:
        assert case.plan.file in text
        assert "sha256" in text
        assert workplace.record(section.section_id) is None


ADVICE = re.compile(
    r"needed|save (it|the scan|the ids|the one meant)|make every pixel|put the one that is meant|copy|check|correct"
    r"|fill in|export|say which|resample|truncated|damaged|name the folder"
    r"|raise stall_s|memory_gb|at most|are read|can be read|set scans_path|are defined|is neither|draw it"
    r"|label images are"
)


def test_every_refusal_says_what_is_needed(workplace: Workplace) -> None:
    texts = [found.text for found in map(workplace.of, NAMES) if found.fate == "refused"]
    bare = [text for text in texts if not ADVICE.search(text)]
    assert not bare, "\n".join(bare)


LOST = ["store-folder-for-a-chunk", "store-lost-chunk"]


@pytest.mark.parametrize("name", [name for name in LOST if name in NAMES])
def test_chunks_that_were_lost_are_remarked(workplace: Workplace, name: str) -> None:
    assert workplace.of(name).fate == "wrong"
    record = workplace.record(name)
    assert record is not None
    assert record.facts["remarks"] == ["1 of 20 chunks are absent and read as 0"]


def test_all_fates_came_about(workplace: Workplace) -> None:
    counts = Counter(workplace.of(name).fate for name in NAMES)
    assert counts["refused"] >= 10
    assert counts["read"] >= 3


# -- paths -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    return folder


def refusals(scans: Path, check: Callable[[str], object], error: type[Exception]) -> dict[str, str]:
    """Paths that were not refused with this error -> what happened instead."""
    missed = {}
    for name, path in refused_paths(scans).items():
        try:
            check(path)
        except error:
            continue
        except Exception as other:  # noqa: BLE001 - that is what is looked for
            missed[name] = f"{type(other).__name__}: {other}"
        else:
            missed[name] = "accepted"
    return missed


def test_a_path_that_leads_out_of_the_scans_or_is_none_is_refused(scans: Path) -> None:
    assert refusals(scans, lambda path: confined(path, scans), ScanError) == {}


def test_a_manifest_that_names_such_a_path_is_refused_whole(scans: Path, tmp_path: Path) -> None:
    def read(path: str) -> object:
        manifest = write_manifest(tmp_path / "m.csv", [{"section_id": "s1", "path": path}])
        return read_manifest(manifest, scans, None)

    assert refusals(scans, read, ManifestError) == {}


def test_every_such_path_is_named_with_its_row(scans: Path, tmp_path: Path) -> None:
    paths = {name: path for name, path in refused_paths(scans).items() if "loop" not in name}
    rows = [{"section_id": name, "path": path} for name, path in paths.items()]
    with pytest.raises(ManifestError) as caught:
        read_manifest(write_manifest(tmp_path / "m.csv", rows), scans, None)
    assert all(repr(path) in str(caught.value) for path in paths.values())
    assert f"{len(rows)} faults" in str(caught.value)
