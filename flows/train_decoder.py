"""A fusion decoder for a brain."""

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from cytoarch.errors import CytoarchError, StoreError
from cytoarch.learning.training import DecoderSettings
from cytoarch.steps.annotations import LATEST, Scribbled
from cytoarch.steps.opened import read_only
from flows.parameters import StoredBrain
from flows.stages import Summary, run_name
from flows.training import ScribbleChoice, train_and_register
from tasks.cancelling import HOOKS

DAY_S = 86_400
MOST_QUESTIONS = 100
"""A run asks again where the answer names no annotation; so often at most."""


class PersonsAnswer(RunInput):
    """What a person says who resumes a run that waits for scribbles."""

    author: str = Field(description="Who drew: the name given in the napari window.")
    version: str = Field(default=LATEST, description="The version that was saved, such as v0003; latest: the last one.")


@flow(name="train-decoder", flow_run_name=run_name("train-decoder"), **HOOKS)
def train_decoder(
    brain: StoredBrain,
    embedding: str = "",
    decoder: DecoderSettings = DecoderSettings(),
    skip: tuple[str, ...] = (),
    scribbles: ScribbleChoice = ScribbleChoice(),
) -> Summary:
    """Train a fusion decoder on label images or scribbles of a brain, score it on held-out sections, register it.

    Args:
        brain: The brain in the store.
        embedding: Name of the embedding to train on; blank where there is only one.
        decoder: How the decoder is trained.
        skip: Sections to leave out.
        scribbles: Whose scribbles are learned from, and whether to wait until they are drawn.

    """
    if scribbles.wait:
        scribbles = ask_for_scribbles(brain, scribbles)
    return train_and_register(brain, embedding, decoder, "decoder", skip, scribbles)


def ask_for_scribbles(brain: StoredBrain, scribbles: ScribbleChoice) -> ScribbleChoice:
    """The scribbles that a person names who resumes the run; it is suspended, and holds no lock, until then.

    An answer that names no annotation of the brain is told so and asked for again. Raises StoreError where the run has
    no deployment: a run in a terminal ends with it and could not be resumed.
    """
    if not deployment.id:
        raise StoreError(
            "only a run of a deployment can wait for a person: start train-decoder from the Prefect UI or with prefect "
            "deployment run, or draw first and name the author (--scribbles.author)"
        )
    trouble = ""
    for question in range(MOST_QUESTIONS):
        answer = suspend_flow_run(
            wait_for_input=form_for(brain, scribbles.author, trouble),
            timeout=round(scribbles.days * DAY_S),
            key=f"scribbles-{question}",  # the run begins anew when it is resumed, and finds its answers by these
        )
        try:
            Scribbled.of(read_only(brain.store_path, brain.brain_id), answer.author, answer.version)
            return scribbles.model_copy(update={"author": answer.author, "version": answer.version})
        except CytoarchError as error:
            trouble = str(error)
    raise StoreError(f"{MOST_QUESTIONS} answers named no annotation of brain {brain.brain_id}; the last: {trouble}")


def form_for(brain: StoredBrain, author: str, trouble: str = "") -> type[PersonsAnswer]:
    """The form of the dialog; where an author was named already, that is filled in."""
    asked = PersonsAnswer.model_fields["author"].description  # a value alone would take a field's description away
    filled = {"author": Field(default=author, description=asked)} if author else {}
    return PersonsAnswer.with_initial_data(description=_question(brain, trouble), **filled)


def _question(brain: StoredBrain, trouble: str) -> str:
    """What the dialog says, as markdown."""
    lines = [
        f"**Brain {brain.brain_id} waits for your scribbles.**",
        (
            f"Open it in napari (*Plugins > Draw and map*, store `{brain.store_path}`), draw in two classes or more, "
            "press *Save version*, and name yourself and the version here. Nothing is computed anew."
        ),
    ]
    if trouble:
        lines.insert(0, f"The last answer could not be used: {trouble}")
    return "\n\n".join(lines)
