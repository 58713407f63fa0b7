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
    with pytest.raises(
        ModelError,
        match=r"are texture, profile, compact, compact:<folder>, lite0, lite0:<stages>, "
        r"dinov3:<[\s\S]*dinov2:<[\s\S]*cyto",
    ):
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("revision", "0" * 40), ("blocks", (1,)), ("norm", False), ("precision", "bf16"), ("device", "cuda")],
)
def test_what_texture_cannot_do_is_refused_by_name(name: str, value: object):
    with pytest.raises(ModelError, match=f"texture has no {name} to set"):
        load_encoder(EncoderSettings.model_validate({name: value}))


@pytest.mark.parametrize("kind", ["dinov3", "dinov2", "cytonet"])
def test_a_revision_reaches_what_looks_for_the_weights(kind: str):
    with pytest.raises(ModelError, match="revision is 'main'"):
        load_encoder(EncoderSettings(encoder=f"{kind}:somebody/model", revision="main"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 0), ("tile_px", 63), ("tile_px", 4097), ("pixel_size_um", 0.04), ("blocks", (1,) * 9)],
)
def test_settings_outside_their_bounds_are_refused(name: str, value: object):
    with pytest.raises(ValueError, match=name):
        EncoderSettings.model_validate({name: value})
