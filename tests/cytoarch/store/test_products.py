"""What can be an address in the store, and that no two products share one."""

import pytest

from cytoarch.errors import StoreError
from cytoarch.store.brain_store import BrainStore
from cytoarch.store.catalogue import Catalogue
from cytoarch.store.products import WHOLE_BRAIN, Product, product_folder
from tests.products import TISSUE, WORK

BAD_IDS = ["..", ".", "", "a/b", "../a", "/a", "a b", "ä", "a\0", "a\n", "-a", "x" * 65, "a\\b"]
PRODUCTS = [
    Product(step, name, section)
    for step in ("tissue", "embeddings", "clusters")
    for name in ("a", "b")
    for section in ("s1", "s2", WHOLE_BRAIN)
] + [Product(step, "x", "s1") for step in ("sections", "labels", "report", "annotations")]


@pytest.mark.parametrize("bad", BAD_IDS)
def test_what_cannot_be_an_id_cannot_be_part_of_an_address(store: BrainStore, bad: str) -> None:
    for names in ((bad, "slide", "s1"), ("tissue", bad, "s1"), ("tissue", "slide", bad)):
        with pytest.raises(StoreError):
            Product(*names)
    with pytest.raises(StoreError):
        store.brain_path(bad)
    with pytest.raises(StoreError):
        store.catalogue(bad)
    with pytest.raises(StoreError):
        store.read_brain(bad)
    with pytest.raises(StoreError), store.lock(bad):
        pass
    with pytest.raises(StoreError), store.join(bad, "ticket"):
        pass
    with pytest.raises(StoreError):
        store.study_path(bad)
    with pytest.raises(StoreError), store.lock_study(bad):
        pass


@pytest.mark.parametrize("bad", ["", "..", "0" * 63, "0" * 65, "G" * 64, "A" * 64, "../" + "0" * 61])
def test_what_is_no_digest_is_no_address_of_a_model(store: BrainStore, bad: str) -> None:
    with pytest.raises(StoreError):
        store.models.path(bad)


def test_addresses_of_different_products_differ_and_lie_in_their_brain(store: BrainStore) -> None:
    catalogues = {brain_id: store.catalogue(brain_id) for brain_id in ("B1", "B2")}
    for place in (Catalogue.path, Catalogue.record_path, Catalogue.damage_path):
        paths = {(brain, product): place(catalogues[brain], product) for brain in catalogues for product in PRODUCTS}
        assert len(set(paths.values())) == 2 * len(PRODUCTS)
        assert all(store.brain_path(brain) in path.parents for (brain, _), path in paths.items())


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda one: one.address)
def test_a_file_of_a_product_is_known_by_its_place_to_be_its(product: Product) -> None:
    assert product_folder(f"{product.key}/zarr.json") == product.key
    assert product_folder(f"{product.key}/0/c/0/0") == product.key


def test_asking_makes_no_folder(store: BrainStore, catalogue: Catalogue) -> None:
    assert store.brain_ids() == ()
    assert catalogue.record(TISSUE) is None
    assert catalogue.current(TISSUE, WORK) is None
    assert not catalogue.is_committed(TISSUE)
    assert list(catalogue.records()) == []
    assert catalogue.names("tissue") == []
    assert catalogue.section_ids("tissue", "slide") == []
    catalogue.path(TISSUE)
    catalogue.forget(TISSUE)
    assert not store.root.exists()
