"""Brains compared by how alike their areas are."""

from pathlib import Path

from prefect import flow
from pydantic import Field, field_validator

from cytoarch.discovery.layout import LayoutSettings, check_method
from cytoarch.errors import StoreError
from cytoarch.paths import ID_PATTERN
from cytoarch.settings import Settings
from cytoarch.steps.cluster_checks import CheckSettings, ClusterChecksStep, checks_notes
from cytoarch.steps.comparison import PAGE_FILE, PAIRS_FILE, ComparisonStep
from cytoarch.steps.opened import open_study
from cytoarch.steps.retrieval import RetrievalSettings, retrieval_notes
from cytoarch.steps.step import Place
from cytoarch.store.brain_store import BrainStore
from flows.parameters import split_names
from flows.places import DEFAULT_STORE
from flows.stages import Summary, final_state, run_in_study
from tasks.cancelling import HOOKS


class CompareChoice(Settings):
    """Which brains are compared. Several are given one after the other or with commas between them."""

    name: str = Field(pattern=ID_PATTERN, description="Name of the comparison: its folder below studies/.")
    brains: tuple[str, ...] = Field(min_length=1, max_length=1000, description="Brains to compare, two at least.")
    clusters: str = Field(
        default="",
        max_length=64,
        description="Clusters whose checks hold the areas; blank where all have one in common.",
    )
    store_path: Path = Field(default=DEFAULT_STORE, description="Folder of the store that holds the brains.")

    _split = field_validator("brains", mode="before")(split_names)

    @field_validator("brains")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(value))


@flow(name="compare-brains", flow_run_name="compare-{compare.name}", **HOOKS)
def compare_brains(
    compare: CompareChoice,
    check: CheckSettings = CheckSettings(),
    layout: LayoutSettings = LayoutSettings(),
    retrieve: RetrievalSettings = RetrievalSettings(),
) -> Summary:
    """Compare brains by how alike their areas are to each other in their embeddings, two brains at a time.

    The tokens of all brains are then clustered as one, laid out, and their nearest neighbours found: do embeddings
    follow areas, or the brain they are from? Every brain is clustered first (cluster-brain, in the same way of
    embedding) and has labels.

    Args:
        compare: The brains, and where they are.
        check: How it is found out what clusters of all brains together follow.
        layout: How embeddings are laid out to be looked at.
        retrieve: How the sheet of nearest neighbours is made.

    """
    check_method(layout)
    if len(compare.brains) < 2:
        raise StoreError(f"two brains at least are compared, {', '.join(compare.brains) or 'none'} is given; name more")
    step = ComparisonStep.of(compare.brains, compare.clusters or _in_common(compare), check, layout, retrieve)
    with open_study(compare.store_path, compare.name) as opened:
        made = run_in_study("compare", opened, step)
        facts, folder = step.stored.record(Place(opened)).facts, opened.catalogue.path(step.product())
    notes = {
        f"{row['one']} and {row['other']}": "-"
        if row["correlation"] is None
        else f"r = {row['correlation']:.3f} over {row['pairs']} pairs of areas"
        for row in facts["pairs"]
    }
    notes |= checks_notes(facts["checks"]) | retrieval_notes(facts["retrieval"])
    paths = {"comparison": str(folder / PAIRS_FILE), "page": str(folder / PAGE_FILE)}
    return final_state(Summary(compare.name, made, {}, {**paths, **notes}), of="study")


def _in_common(compare: CompareChoice) -> str:
    """The name of the checked clusters that all brains have. Raises StoreError, listing them, unless there is one."""
    store = BrainStore(compare.store_path)
    names = {one: store.catalogue(one).names(ClusterChecksStep.step) for one in compare.brains}
    common = set.intersection(*map(set, names.values()))
    if len(common) != 1:
        listed = "; ".join(f"{one}: {', '.join(found) or 'none'}" for one, found in names.items())
        raise StoreError(
            f"the brains have {len(common)} checked clusters in common, one is needed ({listed}); run cluster-brain on "
            "all with the same settings, or name one"
        )
    return common.pop()
