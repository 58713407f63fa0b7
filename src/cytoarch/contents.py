"""Opens what the store holds of a brain: the one place that knows which product holds what."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from cytoarch.anatomy.tissue import TissueMask
from cytoarch.brains import Brain, Section
from cytoarch.digests import content_digest, hash_file
from cytoarch.discovery.clusters import Clustering
from cytoarch.discovery.colours import ColourMap
from cytoarch.embeddings import SectionEmbeddings
from cytoarch.errors import ModelError, StoreError
from cytoarch.images.sections import LABEL_NAME
from cytoarch.images.views import Level, StoredImage
from cytoarch.learning.cards import CARD_FILE, WEIGHTS_FILE
from cytoarch.learning.heads import Head, load_head
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.products import WHOLE_BRAIN, Product
from cytoarch.store.records import Record

SCAN_NAME = "scan"
LABELS_NAME = "manifest"
TISSUE_NAME = "otsu"
QUALITY_NAME = "scan"
QUALITY_PAGE_NAME = "page"
REPORT_NAME = "page"
FIT_FILE = "fit.safetensors"


def section_product(brain_id: str, section_id: str) -> Product:
    """The pixels of a section."""
    return Product(brain_id, "sections", SCAN_NAME, section_id)


def labels_product(brain_id: str, section_id: str) -> Product:
    """The label image that the manifest names for a section."""
    return Product(brain_id, "labels", LABELS_NAME, section_id)


def tissue_product(brain_id: str, section_id: str) -> Product:
    """The tissue of a section."""
    return Product(brain_id, "tissue", TISSUE_NAME, section_id)


def quality_product(brain_id: str, section_id: str) -> Product:
    """Figures and picture of how good the scan of a section is."""
    return Product(brain_id, "quality", QUALITY_NAME, section_id)


def quality_page_product(brain_id: str) -> Product:
    """The page of the quality of all sections."""
    return Product(brain_id, "quality", QUALITY_PAGE_NAME)


def ready_sections(store: BrainStore, brain: Brain) -> tuple[Section, ...]:
    """The sections whose pixels, tissue and labels (where the manifest names any) are committed, in cutting order."""

    def ready(section: Section) -> bool:
        products = [
            section_product(brain.brain_id, section.section_id),
            tissue_product(brain.brain_id, section.section_id),
        ]
        if section.labels:
            products.append(labels_product(brain.brain_id, section.section_id))
        return all(store.record(product) is not None for product in products)

    return tuple(section for section in brain.kept if ready(section))


def embedded_sections(store: BrainStore, brain: Brain, name: str, skip: Collection[str] = ()) -> tuple[Section, ...]:
    """The ready sections that have embeddings of this name, without those to skip."""
    return tuple(
        section
        for section in ready_sections(store, brain)
        if section.section_id not in skip
        and store.record(Product(brain.brain_id, "embeddings", name, section.section_id)) is not None
    )


def open_section(store: BrainStore, brain_id: str, section_id: str) -> StoredImage:
    """The pixels of a committed section."""
    return StoredImage.open(store.path(section_product(brain_id, section_id)))


def open_tissue(store: BrainStore, brain_id: str, section_id: str) -> TissueMask:
    """The tissue mask of a committed section."""
    return TissueMask.open(store.path(tissue_product(brain_id, section_id)))


def open_labels(store: BrainStore, brain_id: str, section_id: str) -> Level:
    """The full-resolution label image of a committed section."""
    return StoredImage.open(store.path(labels_product(brain_id, section_id)) / LABEL_NAME).levels[0]


def open_embeddings(store: BrainStore, brain_id: str, name: str, section_id: str) -> SectionEmbeddings:
    """The committed embeddings of a section."""
    return SectionEmbeddings.open(store.path(Product(brain_id, "embeddings", name, section_id)))


def open_head(store: BrainStore, digest: str) -> Head:
    """A head in the store. Raises ModelError if it is not there or damaged."""
    folder = store.model_path(digest)
    head = load_head(folder)
    found = content_digest({name: hash_file(folder / name).sha256 for name in (CARD_FILE, WEIGHTS_FILE)})
    if found != digest:
        raise ModelError(f"{folder}: its files have changed since they were kept; train or import the head again")
    return head


def open_colour_map(store: BrainStore, brain_id: str, name: str) -> ColourMap:
    """The colours fitted to a brain's embeddings."""
    return ColourMap.from_bytes(_fit(store, Product(brain_id, "colours", name, WHOLE_BRAIN)))


def open_clustering(store: BrainStore, brain_id: str, name: str) -> Clustering:
    """The clustering fitted to a brain's embeddings."""
    return Clustering.from_bytes(_fit(store, Product(brain_id, "clusters", name, WHOLE_BRAIN)))


def _fit(store: BrainStore, product: Product) -> bytes:
    store.require(product, "run embed-brain or cluster-brain first")
    return (store.path(product) / FIT_FILE).read_bytes()


def tissue_on_tokens(
    store: BrainStore, brain_id: str, section_id: str, embeddings: SectionEmbeddings
) -> NDArray[np.bool_]:
    """The tokens of a section (y, x) whose centres lie in tissue and that were computed."""
    return embeddings.inside(open_tissue(store, brain_id, section_id))


def require_embedding(store: BrainStore, brain_id: str, name: str, section_id: str) -> Record:
    """The record of a section's embeddings. Raises StoreError if there is none, or it is of an older scan or tissue."""
    record = store.require(Product(brain_id, "embeddings", name, section_id), "run embed-brain first")
    for key, product in (("section", section_product), ("tissue", tissue_product)):
        source = store.record(product(brain_id, section_id))
        if source is None or source.digest != record.inputs[key]:
            raise StoreError(
                f"brain {brain_id}: the embeddings {name} of section {section_id} were made from an older {key}; "
                "run embed-brain again"
            )
    return record


def embedding_records(store: BrainStore, brain: Brain, name: str, sections: tuple[Section, ...]) -> dict[str, Record]:
    """The committed embedding records by section. Raises StoreError if any section has none that is current."""
    return {
        section.section_id: require_embedding(store, brain.brain_id, name, section.section_id) for section in sections
    }


def embedding_names(store: BrainStore, brain_id: str) -> list[str]:
    """The ways in which a brain has been embedded."""
    return store.names(brain_id, "embeddings")


def pick_embedding(store: BrainStore, brain_id: str, name: str) -> str:
    """The embedding asked for, or the only one there is. Raises StoreError listing the choices."""
    names = embedding_names(store, brain_id)
    if name in names:
        return name
    if not name and len(names) == 1:
        return names[0]
    found = ", ".join(names) or "none"
    wanted = f"no embedding {name!r}" if name else "several embeddings or none, and no name is given"
    raise StoreError(f"brain {brain_id}: {wanted}; there are: {found}. Run embed-brain, or name one of them")
