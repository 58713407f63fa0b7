"""What users have today: a random forest on the multi-scale features of scikit-image, as ilastik classifies pixels."""

import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from skimage.feature import multiscale_basic_features
from sklearn.ensemble import RandomForestClassifier

from benchmarks.scribbles_windows import Drawable, Map

Float32 = NDArray[np.float32]


def features_of(section: Drawable) -> Float32:
    """Intensity, edges and texture at scales of 1 to 16 px (y, x, f)."""
    return np.asarray(multiscale_basic_features(section.pixels, sigma_min=1, sigma_max=16, channel_axis=-1))


@dataclass
class Forest:
    """A hundred trees on the features of some sections, which are computed once."""

    seed: int
    features: dict[str, Float32] = field(default_factory=dict)

    def look(self, section: Drawable) -> None:
        """Compute the features of a section, unless they are known."""
        if section.section_id not in self.features:
            self.features[section.section_id] = features_of(section)

    def fit(self, section: Drawable, labels: Map) -> None:
        """Learn from the labelled pixels of a section; 0 is unlabelled."""
        self.look(section)
        self.model = RandomForestClassifier(
            100, min_samples_leaf=5, class_weight="balanced", random_state=self.seed, n_jobs=1
        )
        self.model.fit(self.features[section.section_id][labels > 0], labels[labels > 0])

    def map(self, section: Drawable) -> Map:
        """The class of every pixel."""
        self.look(section)
        seen = self.features[section.section_id]
        return np.asarray(self.model.predict(seen.reshape(-1, seen.shape[-1])), dtype=np.int64).reshape(seen.shape[:2])


class Clock:
    """Seconds of the wall and of the processor since it was made."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        """(wall, processor)."""
        return time.perf_counter() - self.wall, time.process_time() - self.cpu
