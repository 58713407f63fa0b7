"""What the values of maps mean."""

from cytoarch.brains import Label, LabelClass, LabelTable
from cytoarch.exports.legends import legend_of_classes

TABLE = LabelTable(labels=(Label(id=1, name="CA1", group="hippocampus"), Label(id=2, name="V1", group="cortex")))


def test_groups_are_those_of_names_whatever_ids_a_model_learned() -> None:
    """A model of other brains numbers its classes in its own way; a class that the table does not name has no group."""
    foreign = tuple(LabelClass(name=name, ids=(at,)) for at, name in enumerate(("V1", "CA1", "M1"), start=1))
    rows = legend_of_classes(foreign, TABLE)
    assert [(one.value, one.name, one.group) for one in rows] == [
        (1, "V1", "cortex"),
        (2, "CA1", "hippocampus"),
        (3, "M1", ""),
    ]


def test_classes_that_are_groups_are_of_themselves() -> None:
    rows = legend_of_classes(TABLE.classes(by_group=True), TABLE)
    assert [(one.name, one.group) for one in rows] == [("hippocampus", "hippocampus"), ("cortex", "cortex")]
