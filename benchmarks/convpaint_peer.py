"""Times napari-convpaint on an image and its strokes; runs with the Python of an environment that has it.

    PYTHON -m benchmarks.convpaint_peer FOLDER PRESSES [with-its-weights]

FOLDER holds image.npy (y, x) float32 and labels.npy (y, x), 0 unlabelled. A press trains anew and maps the image, as
its window does. Weights of VGG16 are random unless its own are asked for, which it fetches: then the map means nothing,
and the time is the same. Its Gaussian features need none.
"""

import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import torch

import benchmarks.torchvision_operators  # noqa: F401 - before what imports torchvision

# isort: split
from napari_convpaint.convpaint_model import ConvpaintModel
from napari_convpaint.feature_extractors import nnlayers
from torchvision.models import vgg16

MODELS = ("gaussian", "vgg")


def main() -> None:
    """Print seconds of the wall and of the processor of every press, as JSON."""
    folder, presses = Path(sys.argv[1]), int(sys.argv[2])
    warnings.simplefilter("ignore")
    if len(sys.argv) < 4:
        torch.manual_seed(0)
        torch.save(vgg16().state_dict(), folder / "vgg16.pth")
        nnlayers.guided_model_download = lambda *_: str(folder / "vgg16.pth")
    image, labels = np.load(folder / "image.npy"), np.load(folder / "labels.npy")
    found: dict[str, list[tuple[float, float]]] = {}
    for one in MODELS:
        model = ConvpaintModel(alias=one)
        for _ in range(presses):
            wall, cpu = time.perf_counter(), time.process_time()
            model.train(image, labels)
            model.segment(image)
            found.setdefault(one, []).append((time.perf_counter() - wall, time.process_time() - cpu))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
