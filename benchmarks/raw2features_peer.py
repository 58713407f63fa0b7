"""Times raw2features' own pipeline on one OME-Zarr image; run with the Python of an environment that has it.

    PYTHON benchmarks/raw2features_peer.py IMAGE FOLDER {vitb16,none}

The environment needs raw2features with its readers and timm beside torch. Its model is timm's ViT-B/16 with random
weights; none gives the mean of every patch, as wide. The settings are its best for a local store and few cores.
"""

import json
import sys
import time
from pathlib import Path

import torch

CPUS = 2
# torchvision built for CUDA imports beside a CPU torch only if its operators are declared; none is used here
_declared = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]  # torch leaves it untyped
for _operator in ("nms", "qnms"):
    _declared.define(f"{_operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]  # as above

import timm  # noqa: E402 - after the declaration
from raw2features import RunConfig, embed_slide  # noqa: E402 - imports torchvision
from raw2features.core import plugins  # noqa: E402 - imports torchvision
from raw2features.embedders.base import Embedder, ModelSpec  # noqa: E402 - imports torchvision
from raw2features.embedders.timm_embedder import TimmEmbedder  # noqa: E402 - imports torchvision


class Timed:
    """A model that adds up its time."""

    def __init__(self, model: object) -> None:
        self.model, self.seconds = model, 0.0

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Whatever the model gives."""
        start = time.perf_counter()
        out: torch.Tensor = self.model(batch)  # type: ignore[operator]  # a module or a function
        self.seconds += time.perf_counter() - start
        return out


class RandomVit(TimmEmbedder):  # type: ignore[misc]  # not installed where types are checked
    """Their driver for timm, with random weights instead of a download."""

    def load(self, *_args: object, **_settings: object) -> "RandomVit":
        """Build the model."""
        model = timm.create_model(self.spec.source, pretrained=False, num_classes=0)
        self._model, self._device, self._dtype = Timed(model.eval()), "cpu", torch.float32
        return self


class NoModel(Embedder):  # type: ignore[misc]  # not installed where types are checked
    """Means instead of a model."""

    def load(self, *_args: object, **_settings: object) -> "NoModel":
        """Nothing to load."""
        self._model = Timed(lambda batch: batch.mean((1, 2, 3))[:, None].repeat(1, 768))
        self._device, self._dtype = "cpu", torch.float32
        return self

    def embed_batch(self, batch: torch.Tensor) -> torch.Tensor:
        """(b, 3, T, T) -> (b, 768)."""
        with torch.inference_mode():
            return self._model(batch)


def main(image: str, folder: str, kind: str) -> int:
    """Embed the image and print the seconds as JSON."""
    torch.set_num_threads(CPUS)
    for seam in plugins.SEAMS:
        plugins.available(seam)  # imports what a run would import on first use
    spec = ModelSpec(
        name=kind, family="timm" if kind == "vitb16" else "none", source="vit_base_patch16_224", embedding_dim=768,
        input_size=224, pooling="cls", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), transform_source_url="none",
        license="none", gated=False, interpolation="bicubic", timm_kwargs={},
    )  # fmt: skip
    embedder = (RandomVit if kind == "vitb16" else NoModel)(spec).load()
    with plugins.get("readers", "omezarr")(str(Path(image).resolve())) as reader:
        size_um = reader.mpp
    config = RunConfig(
        models=[kind], no_seg=True, target_mpp=size_um, patch_px=224, step_px=None, features_dtype="float16",
        amp="fp32", device="cpu", batch_size=64, read_workers=CPUS, read_block=8, output_zarr_format=2,
    )  # fmt: skip
    start = time.perf_counter()
    embed_slide(
        str(Path(image).resolve()), folder, config, requested_mpp=size_um, requested_patch_px=224, embedders=[embedder]
    )
    print(json.dumps({"total_s": time.perf_counter() - start, "forward_s": embedder._model.seconds}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
