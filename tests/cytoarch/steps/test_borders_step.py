"""Borders of a section, along the lines that its points lie on."""

import numpy as np
import pandas as pd

from cytoarch.steps.borders import BorderSettings, borders_along


def test_borders_are_found_on_each_line_and_lines_are_cut_where_points_are_missing() -> None:
    rng = np.random.default_rng(0)
    along = np.arange(80) * 0.2
    one = pd.DataFrame({"line": 0, "along_mm": along, "y_px": along * 10, "x_px": 5.0, "border_at": 40})
    two = pd.DataFrame({"line": 1, "along_mm": along, "y_px": along * 10, "x_px": 90.0, "border_at": 55})
    two = two.drop(index=range(20, 26))  # 1.4 mm without tissue
    known = pd.concat([one, two], ignore_index=True)
    place = np.rint(known["along_mm"] / 0.2).to_numpy()
    area = (place >= known["border_at"]).to_numpy().astype(float) + 7 * known["line"].to_numpy()
    embeddings = area[:, None] * np.array([2.0, -1.0, 1.5, 1.0]) + rng.normal(0, 0.5, (len(known), 4))
    order = rng.permutation(len(known))
    found = borders_along(known.iloc[order], embeddings[order], BorderSettings())
    assert found["stretch"].nunique() == 3
    assert found.groupby("stretch").size().tolist() == [80, 20, 54]
    borders = found[found["border"]]
    assert borders["line"].tolist() == [0, 1]
    np.testing.assert_allclose(borders["along_mm"], [8.0, 11.0], atol=0.41)
    assert (found["along_mm"].groupby(found["stretch"]).diff().dropna() > 0).all()


def test_of_several_draws_the_first_counts() -> None:
    known = pd.DataFrame({"line": 0, "along_mm": [0.0, 0.0, 0.2, 0.2], "y_px": 0.0, "x_px": 0.0, "draw": [0, 1, 0, 1]})
    found = borders_along(known, np.zeros((4, 2)), BorderSettings())
    assert found["along_mm"].tolist() == [0.0, 0.2]
    assert not found["border"].any()
