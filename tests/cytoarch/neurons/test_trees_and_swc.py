"""Trees and the files that hold them."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cytoarch.errors import ScanError
from cytoarch.neurons.phantoms import NeuronPhantom, make_phantom
from cytoarch.neurons.swc import read_swc, write_swc
from cytoarch.neurons.trees import EMPTY, ROOT, Tree, joined
from cytoarch.neurons.views import branches, napari_shapes, neuroglancer_skeletons


def fork() -> Tree:
    """A Y of three edges: 3, 4 and 5 um long."""
    points = np.array([[0, 0, 0], [0, 0, 3], [0, 4, 3], [5, 0, 3]], dtype=float)
    return Tree.of(points, np.ones(4), np.array([ROOT, 0, 1, 1]))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "one.swc"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_tree_knows_its_length_ends_and_forks() -> None:
    tree = fork()
    assert (tree.length_um, tree.ends, tree.branchings, tree.roots) == (12.0, 3, 1, 1)
    both = joined([tree, tree])
    assert (both.length_um, both.roots, len(both)) == (24.0, 2, 8)


@pytest.mark.parametrize(
    ("parents", "told"),
    [([ROOT, 2, 1, 1], "own ancestor"), ([ROOT, 7, 1, 1], "not among the 4"), ([1, 0, 1, 1], "own ancestor")],
)
def test_nodes_that_make_no_tree_are_refused(parents: list[int], told: str) -> None:
    with pytest.raises(ScanError, match=told):
        Tree.of(fork().points_um, np.ones(4), np.array(parents))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    tree = make_phantom(NeuronPhantom(shape=(24, 32, 32), seed=3)).tree
    back = read_swc(written(tmp_path, write_swc(tree)))
    assert back.length_um == pytest.approx(tree.length_um, abs=1e-2)
    assert (back.ends, back.branchings, back.roots, len(back)) == (tree.ends, tree.branchings, tree.roots, len(tree))
    again = read_swc(written(tmp_path, write_swc(back)))
    for name in ("points_um", "radii_um", "parents", "kinds"):
        assert np.array_equal(getattr(again, name), getattr(back, name)), name


def test_parents_come_before_children_and_axes_are_x_y_z(tmp_path: Path) -> None:
    backwards = Tree.of(np.array([[3.0, 2, 1], [6, 5, 4]]), np.ones(2), np.array([1, ROOT]))
    lines = [line.split() for line in write_swc(backwards).splitlines() if not line.startswith("#")]
    assert [line[0] for line in lines] == ["1", "2"]
    assert [line[-1] for line in lines] == ["-1", "1"]
    assert lines[0][2:5] == ["4.0000", "5.0000", "6.0000"]


def test_a_file_in_voxels_is_read_in_um(tmp_path: Path) -> None:
    path = written(tmp_path, "7 1 1 2 3 1 -1\n3 3 2 2 3 1 7\n")
    tree = read_swc(path, (3.0, 0.5, 0.25))
    assert tree.points_um[0].tolist() == [9.0, 1.0, 0.25]
    assert tree.length_um == 0.25


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 0 0 0 0 1 -1\n1 0 1 0 0 1 -1\n", "id 1 comes more than once"),
        ("1 0 0 0 0 1 -1\n2 0 1 0 0 1 9\n", "node 2 has the parent 9"),
        ("1 0 0 0 0\n", "line 1: 5 columns"),
        ("# fine\none two\n", "line 2"),
        ("1 0 nan 0 0 1 -1\n", "NaN"),
    ],
)
def test_a_file_that_is_no_swc_says_where(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ScanError, match=rf"one\.swc: .*{told}"):
        read_swc(written(tmp_path, text))


def test_a_file_of_comments_is_an_empty_tree(tmp_path: Path) -> None:
    assert read_swc(written(tmp_path, write_swc(EMPTY))).is_empty


def test_viewers_get_every_edge_once() -> None:
    tree = make_phantom(NeuronPhantom(shape=(24, 32, 32), seed=5)).tree
    assert sum(len(path) - 1 for path in branches(tree)) == len(tree.edges)
    rows = napari_shapes(tree, (1.0, 1.0, 1.0)).splitlines()
    assert rows[0] == "index,shape-type,vertex-index,axis-0,axis-1,axis-2"
    assert len(rows) - 1 == len(tree.edges) + len(branches(tree))
    skeleton = neuroglancer_skeletons(tree)["1"]
    nodes, edges = np.frombuffer(skeleton[:8], "<u4")
    places = np.frombuffer(skeleton[8 : 8 + 12 * nodes], "<f4").reshape(-1, 3)
    assert (nodes, edges) == (len(tree), len(tree.edges))
    assert np.allclose(places, tree.points_um[:, ::-1] * 1000, rtol=1e-6)
    assert len(skeleton) == 8 + 16 * nodes + 8 * edges


def test_skeletons_are_those_that_neuroglancer_itself_writes() -> None:
    skeleton = pytest.importorskip("neuroglancer.skeleton")
    tree = fork()
    source = SimpleNamespace(vertex_attributes={"radius": skeleton.VertexAttributeInfo("float32", 1)})
    theirs = skeleton.Skeleton(tree.points_um[:, ::-1] * 1000, tree.edges, {"radius": tree.radii_um})
    assert neuroglancer_skeletons(tree)["1"] == theirs.encode(source)


@pytest.mark.real
def test_a_tree_of_another_tracer_is_read() -> None:
    folder = Path(os.environ.get("CYTOARCH_REAL_DATA", "../shared/data")) / "neuron_stack"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set CYTOARCH_REAL_DATA")
    tree = read_swc(folder / "test-expected_yflip.swc")
    assert len(tree) == 1679
    assert tree.roots == 1
