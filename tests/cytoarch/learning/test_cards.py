"""Cards and weights from elsewhere: what is out of bounds is refused before anything is made of it."""

import json
import struct
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from cytoarch.errors import ModelError
from cytoarch.learning import cards, heads
from cytoarch.learning.cards import CARD_BYTES, CARD_FILE, MAX_CLASSES, WEIGHTS_FILE, HeadCard, read_card
from cytoarch.learning.decoder import Decoder, FusionNetwork
from cytoarch.learning.heads import HEADER_BYTES, head_files, head_kind, load_head
from cytoarch.learning.probes import Probe


def kept(folder: Path, card: HeadCard, weights: bytes, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / CARD_FILE).write_text(json.dumps(card.model_dump(mode="json") | changes))
    (folder / WEIGHTS_FILE).write_bytes(weights)
    return folder


def probe_weights(classes: int = 3, width: int = 7) -> bytes:
    return save({"weight": np.ones((classes, width), dtype=np.float32), "bias": np.ones(classes, dtype=np.float32)})


def decoder_weights(dims: tuple[int, ...] = (3, 4), width: int = 8, cells: int = 4) -> bytes:
    return save({name: one.numpy() for name, one in FusionNetwork(dims, 3, width, cells).state_dict().items()})


def refusal(folder: Path) -> str:
    """What load_head says, short enough to be read."""
    with pytest.raises(ModelError) as caught:
        load_head(folder)
    said = str(caught.value)
    assert len(said) < 1500
    return said


OUT_OF_BOUNDS = [
    ({"dims": [10**9]}, "dims"),
    ({"dims": [0, 7]}, "dims"),
    ({"dims": [1] * 65}, "dims"),
    ({"cells_per_token": 10**6}, "cells_per_token"),
    ({"cells_per_token": 3}, "3 cells along a token of 16 px"),
    ({"token_px": 10**9}, "token_px"),
    ({"token_px": 0}, "token_px"),
    ({"pixel_size_um": 0}, "pixel_size_um"),
    ({"pixel_size_um": -1}, "pixel_size_um"),
    ({"pixel_size_um": 1e6}, "pixel_size_um"),
    ({"target": "../../areas"}, "target"),
    ({"target": ""}, "target"),
    ({"target": "a" * 33}, "target"),
    ({"kind": "../probe"}, "kind"),
    ({"kind": "Probe"}, "kind"),
    ({"kind": "p" * 33}, "kind"),
    ({"encoder_digest": "0" * 129}, "encoder_digest"),
    ({"classes": [{"name": "a", "ids": [1]}] * (MAX_CLASSES + 1)}, "classes"),
]


@pytest.mark.parametrize(("change", "named"), OUT_OF_BOUNDS, ids=[str(one)[:60] for one, _ in OUT_OF_BOUNDS])
@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_a_card_out_of_bounds_is_refused_and_the_field_named(card, tmp_path: Path, kind: str, change: dict, named: str):
    weights = probe_weights() if kind == "probe" else decoder_weights()
    folder = kept(tmp_path / "head", card(kind, (3, 4), 1 if kind == "probe" else 4), weights, **change)
    assert named in refusal(folder)


def test_a_million_classes_are_refused_by_the_length_of_the_card(card, tmp_path: Path):
    classes = [{"name": "a", "ids": [1]}] * 10**6
    folder = kept(tmp_path / "head", card("probe", (3, 4)), probe_weights(), classes=classes)
    assert f"at most {CARD_BYTES} bytes" in refusal(folder)


def test_bounds_are_met_by_the_largest_that_is_allowed(card, tmp_path: Path):
    folder = kept(
        tmp_path / "head",
        card("probe", (3, 4)),
        probe_weights(MAX_CLASSES, 64),
        classes=[{"name": "a", "ids": [1]}] * MAX_CLASSES,
        dims=[1] * 64,
        target="a" * 32,
        token_px=4096,
        cells_per_token=4096,
        pixel_size_um=100_000,
        encoder_digest="0" * 128,
    )
    found = load_head(folder)
    assert len(found.card.classes) == MAX_CLASSES
    assert found.card.cell_um == 100_000


def test_a_card_of_exactly_the_longest_length_is_read(card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = kept(tmp_path / "head", card("probe", (3, 4)), b"") / CARD_FILE
    monkeypatch.setattr(cards, "CARD_BYTES", path.stat().st_size)
    assert read_card(path) == card("probe", (3, 4))
    monkeypatch.setattr(cards, "CARD_BYTES", path.stat().st_size - 1)
    with pytest.raises(ModelError, match="a card has at most"):
        read_card(path)


def test_no_more_than_three_faults_of_a_card_are_listed(card, tmp_path: Path):
    faults = {"dims": [], "classes": [], "token_px": 0, "pixel_size_um": 0, "kind": ""}
    said = refusal(kept(tmp_path / "head", card("probe", (3, 4)), probe_weights(), **faults))
    assert "kind: " in said
    assert said.endswith("and 2 more)")
    one = refusal(kept(tmp_path / "head", card("probe", (3, 4)), probe_weights(), dims=[]))
    assert "and 0 more" not in one
    assert "dims: " in one


@pytest.mark.parametrize("kind", ["probe", "decoder"])
def test_a_card_of_huge_dims_is_refused_before_a_weight_is_made_or_read(
    card, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """65,536 values in each of 64 layers, 10,000 classes: 168 GB of weights, were they made."""
    monkeypatch.setattr(Probe, "from_tensors", None)
    monkeypatch.setattr(Decoder, "from_tensors", None)
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", None)
    weights = probe_weights() if kind == "probe" else decoder_weights()
    the_card = card(kind, (3, 4), 1 if kind == "probe" else 4)
    classes = [{"name": "a", "ids": [1]}] * MAX_CLASSES
    said = refusal(kept(tmp_path / "head", the_card, weights, dims=[65_536] * 64, classes=classes))
    assert "is needed" in said


def test_the_width_of_a_decoder_is_bounded(card, tmp_path: Path):
    for width in (0, 4097):
        weights = save({"fuse.bias": np.ones(width, dtype=np.float32)})
        assert "1 to 4096 values" in refusal(kept(tmp_path / "head", card("decoder", (3, 4), 4), weights))
    Decoder.check_shapes(card("decoder", (3, 4), 4), shapes_of(card("decoder", (3, 4), 4), 4096))


def shapes_of(the_card: HeadCard, width: int) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = FusionNetwork(the_card.dims, len(the_card.classes), width, the_card.cells_per_token)
    return {name: tuple(one.shape) for name, one in network.state_dict().items()}


def test_what_differs_in_a_decoder_is_named_with_both_shapes(card):
    the_card = card("decoder", (3, 4), 4)
    good = shapes_of(the_card, 8)
    Decoder.check_shapes(the_card, good)
    with pytest.raises(ModelError, match=r"mean has the shape \(8,\), \(7,\) is needed \(1 of \d+ tensors differ\)"):
        Decoder.check_shapes(the_card, good | {"mean": (8,)})
    with pytest.raises(ModelError, match=r"surprise has the shape \(1,\), None is needed"):
        Decoder.check_shapes(the_card, good | {"surprise": (1,)})


def test_weights_that_claim_a_long_header_are_refused_unread(card, tmp_path: Path):
    weights = struct.pack("<Q", HEADER_BYTES + 1) + b"{" * 100
    assert "header of" in refusal(kept(tmp_path / "head", card("probe", (3, 4)), weights))
    weights = struct.pack("<Q", HEADER_BYTES) + b"{" * 100
    assert "header of" not in refusal(kept(tmp_path / "head", card("probe", (3, 4)), weights))


def test_weights_that_take_too_much_are_refused_unread(card, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = kept(tmp_path / "head", card("probe", (3, 4)), probe_weights())
    size = (folder / WEIGHTS_FILE).stat().st_size
    monkeypatch.setattr(heads, "WEIGHTS_BYTES", size)
    load_head(folder)
    monkeypatch.setattr(heads, "WEIGHTS_BYTES", size - 1)
    assert f"at most {size - 1} bytes, found {size}" in refusal(folder)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_weights_of_another_type_are_refused(card, tmp_path: Path, dtype: type):
    weights = save({"weight": np.ones((3, 7), dtype=dtype), "bias": np.ones(3, dtype=np.float32)})
    assert "weights of float32 are needed" in refusal(kept(tmp_path / "head", card("probe", (3, 4)), weights))


def test_a_folder_in_place_of_a_file_is_refused(card, tmp_path: Path):
    folder = kept(tmp_path / "head", card("probe", (3, 4)), probe_weights())
    (folder / WEIGHTS_FILE).unlink()
    (folder / WEIGHTS_FILE).mkdir()
    assert "cannot be read" in refusal(folder)


# -- kinds of heads ----------------------------------------------------------------------------------------------------


class Even:
    """A head that takes all classes for equally likely; a package could add it."""

    def __init__(self, card: HeadCard, tensors) -> None:
        self.card, self._tensors = card, dict(tensors)
        self.bytes_per_token = 4 * sum(card.dims)

    @classmethod
    def from_tensors(cls, card: HeadCard, tensors):
        return cls(card, tensors)

    def tensors(self):
        return self._tensors

    def probabilities(self, embeddings):
        count = len(self.card.classes)
        b, _, y, x = embeddings.shape
        return np.full((b, count, y, x), 1 / count, dtype=np.float32)


no_kind = object()


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch):
    """Makes an installed package offer a kind of head."""

    def offer(name: str, value: str) -> None:
        points = EntryPoints([EntryPoint(name, value, heads.ENTRY_POINTS)])
        monkeypatch.setattr(heads, "entry_points", lambda group: points.select(group=group))

    return offer


def test_our_own_kinds_need_no_package_metadata(offered):
    offered("probe", f"{__name__}:Even")
    assert head_kind("probe") is Probe
    assert head_kind("decoder") is Decoder


def test_a_package_can_add_a_kind_of_head(card, offered, tmp_path: Path):
    offered("even", f"{__name__}:Even")
    head = Even(card("even", (3, 4)), {"a": np.ones(2, dtype=np.float32)})
    folder = tmp_path / "head"
    folder.mkdir()
    for name, content in head_files(head).items():
        (folder / name).write_bytes(content)
    back = load_head(folder)
    assert isinstance(back, Even)
    assert back.card == head.card
    np.testing.assert_array_equal(back.tensors()["a"], [1, 1])


def test_an_unknown_kind_is_refused_and_those_there_are_are_listed(card, offered, tmp_path: Path):
    offered("even", f"{__name__}:Even")
    folder = kept(tmp_path / "head", card("probe", (3, 4)), probe_weights(), kind="oracle")
    assert "no kind of head 'oracle'; the kinds are context, decoder, probe, even" in refusal(folder)


@pytest.mark.parametrize(("module", "name"), [("no_such_package.heads", "Head"), (__name__, "absent")])
def test_an_added_kind_that_cannot_be_imported_names_its_package(offered, module: str, name: str):
    offered("broken", f"{module}:{name}")
    with pytest.raises(ModelError, match=rf"'broken' of the package {module}[\s\S]*cannot be imported"):
        head_kind("broken")


def test_an_added_kind_without_from_tensors_is_refused(offered):
    offered("empty", f"{__name__}:no_kind")
    with pytest.raises(ModelError, match=r"'empty' of the package .* have no from_tensors"):
        head_kind("empty")
