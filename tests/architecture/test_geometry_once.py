"""Half-pixel arithmetic stands in geometry.py and nowhere else in the rooms that deal with grids."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent.parent / "src" / "cytoarch"
MODULES = sorted(
    [
        *(SOURCE / name for name in ("tiling.py", "anatomy/tissue.py", "learning/targets.py", "reporting/pictures.py")),
        *(SOURCE / "images" / name for name in ("views.py", "layout.py", "bands.py")),
        *(SOURCE / "embeddings" / name for name in ("places.py", "reading.py", "dense.py", "sampled.py", "stored.py")),
        *(SOURCE / "parcellation").glob("*.py"),
        *(SOURCE / "discovery").glob("*.py"),
        *(SOURCE / "exports").glob("*.py"),
        *(SOURCE / "reporting" / "quality").glob("*.py"),
    ]
)
ALLOWED = {
    "tiling.py": ["(1 + np.cos(np.pi * np.minimum(distance, 1))) / 2"],
    "reporting/quality/picture.py": ["end / 2"],
    "exports/areas.py": ["sum(around[at:at + 2]) / 2"],
    "discovery/borders.py": [
        "np.arange(values.shape[1]) + 0.5",
        "(np.cov(before.T) + np.cov(after.T)) / 2",
        "threshold / 2",
        "block / 2",
    ],
}
"""What is no arithmetic of pixels: a raised cosine, half a grey value, half-way to a neighbour,
the depths of a profile's bins, the mean of two covariances."""


def halves(source: str) -> Iterator[str]:
    """Every sum, difference, product or quotient with a half in it: 0.5 added, subtracted or multiplied, / 2."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.BinOp | ast.AugAssign):
            continue
        sides = [node.value] if isinstance(node, ast.AugAssign) else [node.left, node.right]
        numbers = [side.value for side in sides if isinstance(side, ast.Constant)]
        half = isinstance(node.op, ast.Add | ast.Sub | ast.Mult) and 0.5 in numbers
        divisor = node.value if isinstance(node, ast.AugAssign) else node.right
        halved = isinstance(node.op, ast.Div) and isinstance(divisor, ast.Constant) and divisor.value == 2
        if half or halved:
            yield ast.unparse(node)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_other_module_halves_a_pixel(path: Path) -> None:
    allowed = ALLOWED.get(path.relative_to(SOURCE).as_posix(), [])
    assert [one for one in halves(path.read_text(encoding="utf-8")) if one not in allowed] == []


@pytest.mark.parametrize(
    "spelling", ["(n + 0.5) * size", "at - 0.5", "0.5 * size", "size / 2", "x += 0.5", "x /= 2", "at - patch / 2"]
)
def test_a_half_pixel_is_seen_in_every_spelling(spelling: str) -> None:
    assert list(halves(spelling))


def test_other_arithmetic_is_left_alone() -> None:
    assert not list(halves("n // 2 + 2 * m - 0.05 * k / 20 + 1.5"))
