"""The terminal's door: its help, its exit codes, one clear error."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cytoarch.stores import BrainStore

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


def test_wrong_use_gives_exit_code_2_and_no_traceback(tmp_path: Path) -> None:
    for arguments in (["map-brain", "--no-such-flag"], ["map-brain", "--manifest-path", str(tmp_path / "none.csv")]):
        done = flows(tmp_path / "home", *arguments)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        assert "none.csv" in done.stderr or "no-such-flag" in done.stderr


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
