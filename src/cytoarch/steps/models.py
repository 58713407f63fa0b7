"""Which heads fit a brain, and how its sections must be embedded for one."""

from cytoarch.embeddings import EmbedSettings
from cytoarch.embeddings.reading import channels_seen
from cytoarch.errors import ModelError, SectionError
from cytoarch.learning.cards import HeadCard
from cytoarch.steps.embeddings import section_facts
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.opened import OpenBrain
from cytoarch.steps.sections import SECTION
from cytoarch.steps.step import Place

COARSER = 1.25
"""Scans that are coarser than what a model sees by more than this do not show what it learned from."""


def settings_for(card: HeadCard, conducted: EmbedSettings) -> EmbedSettings:
    """How sections are embedded for a head: its own encoder and pixel size, on the device of the settings given."""
    conduct = {name: getattr(conducted, name) for name in EmbedSettings.CONDUCT}
    return card.embedding.model_copy(update={**conduct, "pixel_size_um": card.pixel_size_um})


def check_model(card: HeadCard, brain: OpenBrain) -> None:
    """Raise ModelError unless a head can read the ingested sections of a brain: encoder and channels are its own."""
    encoder = encoder_for(card.embedding)
    if encoder.digest != card.encoder_digest:
        raise ModelError(
            f"it was trained on the encoder {card.embedding.encoder} with digest {card.encoder_digest[:12]}, which is "
            f"{encoder.digest[:12]} here: its weights or the releases of its libraries differ"
        )
    one = next(iter(section_facts(brain)), None)  # that all have the same channels is asked where they are embedded
    if one is None:
        return
    image = SECTION.open(Place(brain, brain.rows[one]))
    try:
        depth = channels_seen(image, encoder, card.embedding)
    except SectionError as error:
        raise ModelError(str(error)) from None
    if encoder.dims(depth) != card.embedded_dims:
        raise ModelError(
            f"it reads embeddings of {list(card.embedded_dims)} values, and sections of {depth} channel(s) like "
            f"{one} give {list(encoder.dims(depth))}"
        )


def misfit(card: HeadCard, brain: OpenBrain) -> str:
    """Why a head does not fit a brain of which nobody chose it; blank: it does."""
    try:
        check_model(card, brain)
    except ModelError as error:
        return str(error)
    sizes = [float(facts["pixel_size_um"]) for facts in section_facts(brain).values()]
    if sizes and max(sizes) > COARSER * card.pixel_size_um:
        return f"it sees {card.pixel_size_um:g} um per pixel, and scans of {max(sizes):g} um are coarser"
    return ""
