"""The terminal's door: its help, its exit codes, one clear error."""

import fcntl
import logging
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cytoarch.brains import Brain, Section
from cytoarch.images.sections import write_section
from cytoarch.steps.sections import SECTION
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.collection import write_collection
from cytoarch.store.drafts import ensure
from cytoarch.store.products import Work

ROOT = Path(__file__).resolve().parent.parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("more flows")]


def flows(home: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "CRITICAL"}
    for name in [name for name in environment if name.startswith("PREFECT_API")]:
        del environment[name]
    command = [sys.executable, "-m", "flows", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_help_lists_every_flow(tmp_path: Path) -> None:
    done = flows(tmp_path, "--help")
    assert done.returncode == 0
    for name in (path.stem for path in (ROOT / "flows").glob("*.py") if "@flow(" in path.read_text()):
        assert name.replace("_", "-") in done.stdout


def test_help_imports_nothing_that_takes_seconds() -> None:
    slow = ("prefect", "torch", "sklearn", "zarr", "matplotlib")
    asked = (
        f"from flows.terminal import run; run(['--help']); import sys; print('slow:', *{{*{slow}}} & {{*sys.modules}})"
    )
    done = subprocess.run([sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "slow:"


def test_help_names_a_flag_once_below_the_heading_of_its_settings(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = told(capsys, "map-brain", "--help")
    assert code == 0
    headings = [line.strip("╭─╮ ") for line in out.splitlines() if line.startswith("╭")]
    assert headings[:4] == ["Source", "Choices", "Embed", "Probe"]
    assert headings[-1] == "Run"
    assert out.count("--tissue.polarity") == 1
    assert "TISSUE.POLARITY" not in out


def test_wrong_use_gives_exit_code_2_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], prefect_server: None
) -> None:
    for arguments, said in (
        ([], "--manifest-path"),
        (["--manifest-path", f"{tmp_path}/none.csv", "--no-such-flag"], "no-such-flag"),
        (["--manifest-path", f"{tmp_path}/none.csv"], "none.csv"),
    ):
        code, out, err = told(capsys, "map-brain", *arguments, "--store-path", str(tmp_path / "store"))
        assert (code, out) == (2, "")
        assert said in err
    assert not (tmp_path / "store").exists()


@pytest.mark.long
def test_a_phantom_is_drafted_completed_and_mapped_with_a_failed_section(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    written = flows(tmp_path / "home", "phantom", str(brain), "--size", "tiny")
    assert written.returncode == 0, written.stderr
    for picture in ("sections", "closeup", "surface"):
        path = brain / "pictures" / f"{picture}.png"
        assert f"picture   {path}" in written.stdout
        with Image.open(path) as image:
            assert np.asarray(image.convert("RGB")).reshape(-1, 3).std(axis=0).min() > 10, "a picture shows something"
    (brain / "manifest.csv").unlink()
    drafted = flows(
        tmp_path / "home", "manifest", str(brain / "scans"), "--brain", "B07",
        "--labels-folder", str(brain / "labels"), "--output", str(brain / "manifest.csv"),
    )  # fmt: skip
    assert drafted.returncode == 0, drafted.stderr
    arguments = ["map-brain", "--manifest-path", str(brain / "manifest.csv"), "--store-path", str(tmp_path / "store")]
    refused = flows(tmp_path / "home", *arguments)
    assert refused.returncode == 2
    assert "section_number '?20' was read from a file name" in refused.stderr
    (brain / "manifest.csv").write_text((brain / "manifest.csv").read_text().replace("?", ""))
    (brain / "scans" / "s0020.tif").write_bytes(b"II*\0")
    mapped = flows(tmp_path / "home", *arguments, "--parcellate.source", "cache")
    assert mapped.returncode == 3, mapped.stderr
    assert "failed s0020" in mapped.stderr
    for line in ("map ", "report ", "store ", "MLflow run ", "model "):
        assert line in mapped.stdout
    assert (
        len(list((BrainStore(tmp_path / "store").brain_path("B07") / "records" / "parcellations").rglob("*.json"))) == 4
    )


# -- verify and validate -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a brain of two small sections."""
    folder = tmp_path_factory.mktemp("made")
    tifffile.imwrite(folder / "a.tif", np.random.default_rng(0).integers(0, 256, (300, 520), dtype=np.uint8))
    rows = [
        Section(brain_id="B1", section_id=f"s{number}", section_number=number, path="a.tif", pixel_size_um=4.0)
        for number in (1, 2)
    ]
    store, brain = BrainStore(folder / "store"), Brain(brain_id="B1", sections=tuple(rows))
    catalogue = store.catalogue("B1")
    with store.lock("B1"):
        store.write_brain(brain)
        for row in rows:
            write = partial(write_section, scan_path=folder / "a.tif", section=row)
            ensure(catalogue, SECTION.product(row.section_id), Work(1, {}, {}), write)
        write_collection(catalogue, brain)
    return store.root


@pytest.fixture
def store(made: Path, tmp_path: Path) -> BrainStore:
    """A copy of that store, to be damaged."""
    return BrainStore(shutil.copytree(made, tmp_path / "store"))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code and output of a command that is run in this process: nothing is started or imported anew."""
    from flows.terminal import run

    logging.disable(logging.ERROR)  # as the terminal's door sets the level: Prefect's own account is not shown
    try:
        code = run(arguments)
    finally:
        logging.disable(logging.NOTSET)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_verify_names_a_flipped_byte_with_exit_code_3(store: BrainStore, capsys: pytest.CaptureFixture[str]) -> None:
    """The damaged one in a process of its own, as a person starts it."""
    arguments = ["verify", "B1", "--store-path", str(store.root)]
    code, out, _ = told(capsys, *arguments)
    assert code == 0
    assert out.startswith("B1: ")
    assert out.endswith(": all as it was written\n")
    key = "sections.ome.zarr/s2/0/c/0/0/0"
    flip(store.brain_path("B1") / key, 100)
    found = flows(store.root.parent / "home", *arguments)
    assert found.returncode == 3, found.stderr
    assert f"{key}: its content has changed; the next run makes it again" in found.stdout
    assert found.stdout.splitlines()[-1].startswith("B1: ")
    assert "1 fault" in found.stdout.splitlines()[-1]


def test_verify_lists_what_belongs_to_no_record_and_is_content(
    store: BrainStore, capsys: pytest.CaptureFixture[str]
) -> None:
    (store.brain_path("B1") / "sections.ome.zarr" / "s1" / "[bold]note.txt").write_text("?")
    code, out, err = told(capsys, "verify-brain", "B1", "--store-path", str(store.root))
    assert code == 0
    assert "belongs to no record: sections.ome.zarr/s1/[bold]note.txt" in err
    assert "all as it was written" in out


def test_verify_names_every_fault(store: BrainStore, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [f"sections.ome.zarr/{one}/zarr.json" for one in ("s1", "s2")]
    for key in keys:
        flip(store.brain_path("B1") / key, 20)
    code, out, _ = told(capsys, "verify", "B1", "--store-path", str(store.root))
    assert code == 3
    assert [line.split(":")[0] for line in out.splitlines()] == [*keys, "B1"]
    assert "2 faults" in out


def test_validate_says_whether_images_conform(store: BrainStore, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--store-path", str(store.root)]
    assert told(capsys, "validate", "B1", *options)[:2] == (0, "B1: conforms to NGFF 0.5\n")
    folder = store.brain_path("B1") / "sections.ome.zarr" / "s2"
    assert told(capsys, "validate", str(folder), *options)[:2] == (0, f"{folder}: conforms to NGFF 0.5\n")
    file = folder / "zarr.json"
    file.write_text(file.read_text().replace('"version":"0.5"', '"version":"0.4"'))
    code, out, _ = told(capsys, "validate", "B1", *options)
    assert code == 3
    *faults, last = out.splitlines()
    assert all(fault.startswith("sections.ome.zarr/s2") for fault in faults)
    assert last.startswith(f"B1: {len(faults)} fault")
    assert faults


@pytest.mark.parametrize("command", ["verify", "validate"])
def test_a_brain_that_is_not_there_is_wrong_use_and_those_that_are_there_are_listed(
    store: BrainStore, capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    code, out, err = told(capsys, command, "B2", "--store-path", str(store.root))
    assert (code, out) == (2, "")
    assert "'B2'" in err
    assert "brains there: B1" in err
    assert sorted(path.name for path in (store.root / "brains").iterdir()) == ["B1"]
    code, _, err = told(capsys, command, "B1", "--store-path", str(tmp_path / "none"))
    assert code == 2
    assert "brains there: none" in err
    assert not (tmp_path / "none").exists()


def test_a_brain_that_is_being_written_cannot_be_verified_but_validated(
    store: BrainStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with (store.brain_path("B1") / "lock").open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, out, err = told(capsys, "verify", "B1", "--store-path", str(store.root))
        assert (code, out) == (2, "")
        assert "is being written" in err
        assert told(capsys, "validate", "B1", "--store-path", str(store.root))[0] == 0
