"""The choice of an encoder by its id."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from cytoarch.encoders import registry
from cytoarch.encoders.registry import EncoderSettings, load_encoder
from cytoarch.encoders.texture import TextureEncoder
from cytoarch.errors import ModelError


def added_texture(settings: EncoderSettings) -> TextureEncoder:
    return TextureEncoder(encoder_id=settings.encoder)


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch):
    """Makes an installed package offer an encoder."""

    def offer(name: str, value: str) -> None:
        points = EntryPoints([EntryPoint(name, value, registry.ENTRY_POINTS)])
        monkeypatch.setattr(registry, "entry_points", lambda group: points.select(group=group))

    return offer


@pytest.mark.parametrize("name", ["resnet", "dinov3", "dinov2:", "cytonet", "texture:fine", "texture:", ""])
def test_an_unknown_encoder_is_refused_and_those_there_are_are_listed(name: str):
    with pytest.raises(ModelError, match=r"the encoders are texture, dinov3:<[\s\S]*dinov2:<[\s\S]*cytonet:<"):
        load_encoder(EncoderSettings(encoder=name))


def test_a_package_can_add_an_encoder(offered):
    offered("mine", f"{__name__}:added_texture")
    assert load_encoder(EncoderSettings(encoder="mine:small")).encoder_id == "mine:small"
    with pytest.raises(ModelError, match="mine"):
        load_encoder(EncoderSettings(encoder="yours"))


@pytest.mark.parametrize(("module", "name"), [("no_such_package.encoders", "load"), (__name__, "absent")])
def test_an_added_encoder_that_cannot_be_imported_names_its_package(offered, module: str, name: str):
    offered("broken", f"{module}:{name}")
    with pytest.raises(ModelError, match=rf"'broken' of the package {module}[\s\S]*cannot be imported"):
        load_encoder(EncoderSettings(encoder="broken:x"))


def test_the_form_names_every_kind():
    text = EncoderSettings.model_fields["encoder"].description or ""
    assert all(kind in text for kind in ("texture", "dinov3:", "dinov2:", "cytonet:"))
    assert EncoderSettings().norm is True
    assert {EncoderSettings(precision=one).precision for one in ("fp32", "bf16", "fp16")} == {"fp32", "bf16", "fp16"}
    with pytest.raises(ValueError, match="precision"):
        EncoderSettings(precision="int8")
