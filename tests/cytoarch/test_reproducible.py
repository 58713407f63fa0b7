"""Fits are the same bits whatever the number of threads, and leave the number of threads as it was."""

import json
import os
import subprocess
import sys
import threading

from threadpoolctl import threadpool_info

from cytoarch.reproducible import single_threaded

FITS = """
import hashlib, json
import numpy as np
from cytoarch.brains import LabelClass
from cytoarch.discovery.colours import ColourMap
from cytoarch.discovery.clusters import Clustering, ClusterSettings
from cytoarch.embeddings import EmbedSettings
from cytoarch.learning.cards import HeadCard
from cytoarch.learning.probes import fit_probe

rng = np.random.default_rng(0)
tokens = rng.normal(size=(2000, 3072)).astype(np.float32)
targets = rng.integers(0, 24, len(tokens))
tokens[:, :24] += 2 * np.eye(24, dtype=np.float32)[targets]
clustering = Clustering.fit([tokens], ClusterSettings(clusters=5))
classes = tuple(LabelClass(name=str(i), ids=(i + 1,)) for i in range(24))
card = HeadCard(
    kind="probe", target="areas", classes=classes, dims=(3072,), cells_per_token=1, embedding=EmbedSettings(),
    encoder_digest="0", token_px=16, pixel_size_um=4.0,
)
probe, _ = fit_probe(card, tokens, targets, 1.0)
found = {
    "colours": ColourMap.fit(np.array_split(tokens.astype(np.float16), 3)).to_bytes(),
    "clusters": clustering.to_bytes(),
    "assigned": clustering.assign(tokens).tobytes(),
    "probe": probe.weight.tobytes() + probe.bias.tobytes(),
}
print(json.dumps({name: hashlib.sha256(data).hexdigest() for name, data in found.items()}))
"""


def digests(threads: int) -> dict[str, str]:
    limits = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(
        [sys.executable, "-c", FITS], env={**os.environ, **limits}, capture_output=True, text=True, check=True
    )
    return dict(json.loads(done.stdout))


def test_fits_are_the_same_bits_on_any_number_of_threads() -> None:
    assert digests(1) == digests(4)


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
