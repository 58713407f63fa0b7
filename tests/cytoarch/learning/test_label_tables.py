"""Label tables of several brains become one by names; what does not fit is an error."""

import pytest

from cytoarch.brains import Label, LabelTable
from cytoarch.errors import TrainingError
from cytoarch.learning.label_tables import merged_table, named_alike


def table(*labels: tuple[int, str] | tuple[int, str, str]) -> LabelTable:
    return LabelTable(labels=tuple(Label(id=one[0], name=one[1], group=(*one, None)[2]) for one in labels))


def test_names_decide_and_ids_are_given_anew_where_they_are_taken() -> None:
    merged = merged_table({"A": table((1, "L1"), (2, "L2")), "B": table((7, "L2"), (1, "WM"), (9, "L3"))})
    assert [(one.id, one.name) for one in merged.labels] == [(1, "L1"), (2, "L2"), (3, "WM"), (9, "L3")]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (table((1, "V1", "motor")), "'V1' is of group 'visual' in A and of 'motor' in B"),
        (table((1, "v 1", "visual")), "'V1' in A and 'v 1' in B differ in case or spaces"),
    ],
)
def test_conflicts_are_errors_that_name_both_brains(other: LabelTable, told: str) -> None:
    with pytest.raises(TrainingError, match=told):
        merged_table({"A": table((1, "V1", "visual")), "B": other})


def test_classes_take_the_ids_of_a_table_that_names_them_or_none() -> None:
    classes = table((1, "L1"), (2, "L2")).classes(by_group=False)
    known, strange = named_alike(classes, table((4, "L2"), (5, "L9")), by_group=False)
    assert [one.ids for one in known] == [(), (4,)]
    assert [one.name for one in strange] == ["L9"]
    assert [one.ids for one in named_alike(classes, None, by_group=False)[0]] == [(), ()]
