"""Imports only point down, and importing does no work."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
MODULES = sorted(path for folder in ("src/cytoarch", "tasks", "flows") for path in (ROOT / folder).rglob("*.py"))

STOREYS = {
    "src": {"prefect", "prefect_dask", "mlflow", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"mlflow"},
}
"""What each storey must never import."""

# ground first; a room may import the rooms before it and its own
ROOMS = (
    ("errors", "progress", "geometry", "settings"),
    ("digests", "tiling", "measures", "reproducible", "palette", "variation"),
    ("paths", "tables"),
    ("brains",),
    ("containment",),
    ("store",),
    ("images",),
    ("annotations",),
    ("augmentation", "drafting", "anatomy", "encoders", "phantoms"),
    ("embeddings",),
    ("sampling",),
    ("learning", "neurons", "pretraining"),
    ("parcellation", "discovery"),
    ("reporting", "exports"),
    ("steps",),
    ("interactive",),
    ("napari",),
)


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_storey_imports_one_above_it(path: Path) -> None:
    storey = path.relative_to(ROOT).parts[0]
    forbidden = STOREYS[storey]
    found = {name for name in imported(path) if name.split(".")[0] in forbidden}
    if storey == "tasks" and path.parent.name != "tracking":
        found |= {name for name in imported(path) if name.split(".")[0] == "mlflow"}
    assert not found


@pytest.mark.parametrize(
    "path", [path for path in MODULES if "cytoarch" in path.parts], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_rooms_of_the_library_import_only_rooms_below_them(path: Path) -> None:
    place = {room: height for height, rooms in enumerate(ROOMS) for room in rooms}
    room = path.relative_to(ROOT / "src" / "cytoarch").parts[0].removesuffix(".py")
    if room == "__init__":
        return
    below = {other for other, height in place.items() if height < place[room]} | {room}
    used = {name.split(".")[1] for name in imported(path) if name.startswith("cytoarch.")}
    assert used <= below, f"{room} imports {sorted(used - below)}"


def test_every_room_has_its_place() -> None:
    rooms = {
        path.name.removesuffix(".py") for path in (ROOT / "src" / "cytoarch").iterdir() if path.name[0] not in "_."
    }
    assert rooms == {room for rooms in ROOMS for room in rooms}


def test_only_encoders_import_transformers() -> None:
    users = {path for path in MODULES if any(name.split(".")[0] == "transformers" for name in imported(path))}
    assert {path.parent.name for path in users} == {"encoders"}


def test_only_the_encoders_room_and_the_registry_module_know_huggingface() -> None:
    users = {path.name for path in MODULES if any(name.startswith("huggingface_hub") for name in imported(path))}
    assert users == {"weights.py"}


def test_there_are_no_drawers() -> None:
    names = {path.stem for path in MODULES}
    assert not names & {"utils", "helpers", "common", "misc", "types", "util", "helper"}


def has_window() -> bool:
    """Whether napari and a Qt that loads are installed: they are an extra, the core is imported without them."""
    tried = subprocess.run([sys.executable, "-c", "import napari, PyQt6.QtWidgets"], capture_output=True)
    return tried.returncode == 0


HAS_WINDOW = has_window()


def test_only_the_plugin_knows_qt_and_napari() -> None:
    users = {path for path in MODULES if {name.split(".")[0] for name in imported(path)} & {"napari", "qtpy", "PyQt6"}}
    command = ROOT / "flows" / "drawing.py"  # imports it when it is called
    assert {path.parent.name for path in users - {command}} == {"napari"}


IMPORT_ALL = r"""
import importlib, json, os, sys
third_party, ours = json.loads(sys.argv[1])

importlib.import_module("cytoarch.steps")
above = sorted({"prefect", "prefect_dask", "mlflow"} & set(sys.modules))
for name in [name for name in sys.modules if name.split(".")[0] == "cytoarch"]:
    del sys.modules[name]  # to be imported again, and watched

for module, name in third_party:  # what they do when imported, some of it lazily, is theirs
    loaded = importlib.import_module(module)
    if name:
        getattr(loaded, name, None)

faults = []
root = sys.argv[2]

def from_ours():
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(root) and ".venv" not in name:
            return True
        frame = frame.f_back
    return False

def hook(event, args):
    work = event in ("socket.connect", "socket.bind", "os.mkdir", "os.remove", "os.rename", "subprocess.Popen")
    work = work or (event == "open" and isinstance(args[1], str) and any(letter in args[1] for letter in "wax+")
                    and not str(args[0]).endswith(".pyc") and "__pycache__" not in str(args[0]))
    if work and from_ours():
        faults.append([event, str(args[0])])

class Watched(type(os.environ)):
    def __getitem__(self, key):
        name = sys._getframe(1).f_code.co_filename
        caller = sys._getframe(2).f_code.co_filename if name.endswith("_collections_abc.py") else name
        if caller.startswith(root) and ".venv" not in caller:
            faults.append(["environ", key])
        return super().__getitem__(key)

os.environ.__class__ = Watched
sys.addaudithook(hook)
for name in ours:
    importlib.import_module(name)
import torch
if torch.cuda.is_initialized():
    faults.append(["cuda", "initialised"])
print(json.dumps({"above": above, "faults": faults}))
"""


def names_from_others(path: Path) -> set[tuple[str, str]]:
    """(module, name) of every import from a library that is not ours."""
    pairs: set[tuple[str, str]] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            pairs |= {(alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            pairs |= {(node.module or "", alias.name) for alias in node.names}
    return {pair for pair in pairs if pair[0].split(".")[0] not in ("cytoarch", "tasks", "flows")}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT / "src" if "src" in path.relative_to(ROOT).parts else ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@pytest.fixture(scope="module")
def found_by_importing() -> dict[str, list[str]]:
    """What one process saw that imported the steps, and then every module of ours."""
    modules = [path for path in MODULES if path.name != "__main__.py" and (HAS_WINDOW or "napari" not in path.parts)]
    ours = [module_name(path) for path in modules]
    third = sorted({pair for path in modules for pair in names_from_others(path)})
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORT_ALL, json.dumps([third, ours]), str(ROOT)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.long
def test_importing_any_module_does_no_work(found_by_importing: dict[str, list[str]]) -> None:
    """No connection, no folder or file made, no process, no environment read, by any module of ours."""
    assert found_by_importing["faults"] == []


@pytest.mark.long
def test_the_steps_need_neither_prefect_nor_mlflow(found_by_importing: dict[str, list[str]]) -> None:
    assert found_by_importing["above"] == []
