"""How unlike what it learned from a token is: measured where the truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import mahalanobis
from scipy.stats import chi

from cytoarch.errors import ModelError
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.domain import SHARES, Domain, domain_of, fit_domain
from cytoarch.learning.heads import head_files, load_domain, load_head
from cytoarch.learning.probes import Probe

CENTRES = np.array([[0.0, 0.0, 0.0], [6.0, 0.0, 0.0], [0.0, 6.0, 0.0]])
SPREAD = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 0.25]])


def gaussian_tokens(seed: int, each: int = 3000) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Tokens of three classes with one covariance, from ten sections."""
    rng = np.random.default_rng(seed)
    strata = np.repeat(np.arange(3), each)
    tokens = CENTRES[strata] + rng.multivariate_normal(np.zeros(3), SPREAD, len(strata))
    return tokens.astype(np.float32), strata, np.tile(np.arange(10), len(strata) // 10)


def grid(tokens: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(tokens.T[:, :, None])


@pytest.fixture(scope="module")
def domain() -> Domain:
    return fit_domain(*gaussian_tokens(0), 4)


def test_distances_are_those_of_mahalanobis(domain: Domain) -> None:
    tokens, strata, _ = gaussian_tokens(1, each=20)
    inverse = np.linalg.inv(SPREAD)
    known = [mahalanobis(one, CENTRES[c], inverse) for one, c in zip(tokens, strata, strict=True)]
    np.testing.assert_allclose(domain.distances(grid(tokens), strata[:, None])[:, 0], known, rtol=0.1, atol=0.1)


def test_the_reach_of_a_gaussian_class_is_that_of_the_chi_distribution(domain: Domain) -> None:
    np.testing.assert_allclose(domain.reach[:3], [chi(3).ppf(SHARES)] * 3, rtol=0.06)
    assert (domain.reach[3] == 0).all(), "a class without tokens"


def test_what_was_drawn_alike_lies_inside_and_what_is_shifted_does_not(domain: Domain) -> None:
    tokens, strata, _ = gaussian_tokens(2)
    grades = np.bincount(domain.grades(grid(tokens), strata[:, None]).ravel(), minlength=4) / len(tokens)
    np.testing.assert_allclose(grades, [0, 0.95, 0.04, 0.01], atol=0.012)
    shifted = domain.grades(grid(tokens + np.float32(5)), strata[:, None])
    assert (shifted == 3).mean() > 0.9
    assert (domain.grades(grid(tokens), np.full((len(tokens), 1), 3)) == 3).all(), "nothing is like a class unseen"


def test_sections_that_differ_widen_the_reach(domain: Domain) -> None:
    """A class is as wide as a section that its centre does not know is away from it."""
    tokens, strata, parts = gaussian_tokens(3)
    away = tokens + np.random.default_rng(0).normal(0, 2, (10, 3))[parts].astype(np.float32)
    wider, whole = fit_domain(away, strata, parts, 3), fit_domain(away, strata, np.zeros_like(parts), 3)
    assert (wider.reach[:, 0] > whole.reach[:, 0]).all()


def test_a_domain_is_kept_beside_the_weights_and_leaves_them_alone(domain: Domain, card, tmp_path) -> None:
    head_card: HeadCard = card("probe", (3,))
    three = fit_domain(*gaussian_tokens(0), 3)
    head = Probe(head_card, np.ones((3, 3), dtype=np.float32), np.zeros(3, dtype=np.float32))
    for name, content in head_files(head, three).items():
        (tmp_path / name).write_bytes(content)
    read = load_domain(tmp_path)
    assert read is not None
    for name, one in three.tensors().items():
        np.testing.assert_array_equal(read.tensors()[name], one)
    np.testing.assert_array_equal(load_head(tmp_path).tensors()["weight"], head.weight)
    for name, content in head_files(head, domain).items():  # four classes where the card has three
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match="the domain of a head with tensors"):
        load_domain(tmp_path)
    for name, content in head_files(head).items():
        (tmp_path / name).write_bytes(content)
    assert load_domain(tmp_path) is None


def test_labels_of_one_class_make_no_domain(section, classes) -> None:
    from cytoarch.learning.datasets import token_sources

    sections = [section(f"s{i}", i) for i in range(3)]
    assert domain_of(token_sources(sections, classes), 3, 0) is not None
    assert domain_of(token_sources(sections, classes[:1]), 1, 0) is None
