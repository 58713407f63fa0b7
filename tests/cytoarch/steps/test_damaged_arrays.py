"""Arrays that steps keep as npz: whole they come back, damaged they are named and cost what was made of them."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cytoarch.errors import CytoarchError, SectionError, StoreError
from cytoarch.steps.columns import Columns, ColumnsStep
from cytoarch.steps.midline import ARRAYS, MidlineStep
from cytoarch.steps.structure import unpacked

Open = Callable[[Path], object]
KEPT: dict[str, tuple[Open, tuple[str, ...], type[CytoarchError]]] = {
    "columns.npz": (ColumnsStep.opened, Columns._fields, SectionError),
    "midline.npz": (MidlineStep.opened, (*ARRAYS, "line_0", "line_1"), SectionError),
    "points.npz": (lambda folder: unpacked(folder / "points.npz"), ("section", "feature/a"), StoreError),
}


@pytest.mark.parametrize("name", KEPT)
def test_damaged_arrays_are_named_with_what_to_do(tmp_path: Path, name: str) -> None:
    read, arrays, error = KEPT[name]
    whole = io.BytesIO()
    np.savez(whole, allow_pickle=False, **{one: np.arange(4.0) for one in arrays})
    (tmp_path / name).write_bytes(whole.getvalue())
    read(tmp_path)
    first = f"{arrays[0]}.npy".encode()
    for text in (b"", b"no archive", whole.getvalue()[:-40], whole.getvalue().replace(first, b"x" * len(first))):
        (tmp_path / name).write_bytes(text)
        with pytest.raises(error, match=rf"{name} is damaged.*run verify"):
            read(tmp_path)


def test_a_middle_that_lost_a_line_is_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / "midline.npz", allow_pickle=False, **dict.fromkeys((*ARRAYS, "line_1"), np.arange(4.0)))
    with pytest.raises(SectionError, match="line_0 are not in it"):
        MidlineStep.opened(tmp_path)
