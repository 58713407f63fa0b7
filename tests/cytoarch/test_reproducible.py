"""Fits are the same bits whatever the number of threads, and leave the number of threads as it was."""

import hashlib
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from cytoarch.brains import LabelClass
from cytoarch.discovery.clusters import Clustering, ClusterSettings
from cytoarch.discovery.colours import ColourMap
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.probes import fit_probe
from cytoarch.reproducible import single_threaded

CLASSES, WIDTH = 24, 1024
"""Sums over so many features are taken in parts by BLAS where it has more than one thread."""


@pytest.fixture
def torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def digests(threads: int) -> dict[str, str]:
    """Of every fit, where libraries may use so many threads."""
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(1000, WIDTH)).astype(np.float32)
    targets = rng.integers(0, CLASSES, len(tokens))
    tokens[:, :CLASSES] += 2 * np.eye(CLASSES, dtype=np.float32)[targets]
    card = HeadCard(
        kind="probe",
        target="areas",
        classes=tuple(LabelClass(name=str(i), ids=(i + 1,)) for i in range(CLASSES)),
        dims=(WIDTH,),
        cells_per_token=1,
        embedding=EmbedSettings(),
        encoder_digest="0",
        token_px=16,
        pixel_size_um=4.0,
    )
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        assert max(limits_now()) == threads  # a library built without threads has one whatever is asked for
        clustering = Clustering.fit([tokens], ClusterSettings(clusters=5))
        probe, _ = fit_probe(card, tokens, targets, 1.0)
        found = {
            "colours": ColourMap.fit(np.array_split(tokens.astype(np.float16), 3)).to_bytes(),
            "clusters": clustering.to_bytes(),
            "assigned": clustering.assign(tokens).tobytes(),
            "probe": probe.weight.tobytes() + probe.bias.tobytes(),
        }
    return {name: hashlib.sha256(data).hexdigest() for name, data in found.items()}


def test_fits_are_the_same_bits_on_any_number_of_threads(torch_threads: None) -> None:
    assert digests(1) == digests(2)


def limits_now() -> list[int]:
    return [int(pool["num_threads"]) for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_limits_that_many_threads_ask_for_are_undone_when_all_are_done() -> None:
    before = limits_now()
    assert before
    inside: list[list[int]] = []

    def work() -> None:
        for _ in range(20):
            with single_threaded():
                inside.append(limits_now())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert {limit for limits in inside for limit in limits} == {1}
    assert limits_now() == before
