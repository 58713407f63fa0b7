"""A transformer goes through the whole chain as the filter bank does."""

from pathlib import Path

import pytest
import torch
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from cytoarch.embeddings import EmbedSettings
from cytoarch.images.views import StoredImage
from cytoarch.learning.training import DecoderSettings
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import Product
from flows.map_brain import map_brain
from flows.parameters import BrainSource, MapSettings

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("more flows")]


@pytest.fixture
def tiny_vit(tmp_path: Path) -> Path:
    """A randomly initialised DINOv3 of twelve blocks in a folder."""
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        hidden_size=24, intermediate_size=48, num_hidden_layers=12, num_attention_heads=2, num_register_tokens=4
    )
    DINOv3ViTModel(config).save_pretrained(tmp_path / "vit")
    return tmp_path / "vit"


@pytest.mark.long
def test_a_brain_is_mapped_with_a_vision_transformer_and_a_decoder(
    phantom: Path, tiny_vit: Path, tmp_path: Path, prefect_server: None
) -> None:
    store = BrainStore(tmp_path / "store")
    summary = map_brain(
        source=BrainSource(manifest_path=phantom, store_path=store.root),
        settings=MapSettings(
            embed=EmbedSettings(encoder=f"dinov3:{tiny_vit}", tile_px=256, pixel_size_um=20.0),
            head="decoder",
            decoder=DecoderSettings(epochs=3, width=8, least_steps=0),
        ),
    )
    assert summary.failed == {}
    records = {record.step: record for record in store.catalogue("P01").records()}
    embedded = records["embeddings"]
    assert embedded.facts["dims"] == [24] * 4
    assert embedded.facts["upsampled"], "80 um sections are brought to 20 um"
    folder = store.catalogue("P01").path(Product("embeddings", embedded.name, embedded.section))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        "block-03", "block-06", "block-09", "block-12", "computed",
    ]  # fmt: skip
    token = StoredImage.open(folder / "block-03")
    assert token.pixel_size_um == 320.0
    assert token.levels[0].origin_um == (320.0 - 80.0) / 2
    assert "were upsampled for it" in (store.brain_path("P01") / "report" / "index.html").read_text()
