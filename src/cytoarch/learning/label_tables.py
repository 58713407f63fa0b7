"""The label tables of several brains as one: labels are the same where they have the same name."""

from collections.abc import Mapping, Sequence

from cytoarch.brains import Label, LabelClass, LabelTable
from cytoarch.errors import TrainingError


def merged_table(tables: Mapping[str, LabelTable]) -> LabelTable:
    """One table of all labels, in order of first appearance, by brain -> its table.

    A label keeps the id of the first brain that names it, or gets the next free one where another has that. Raises
    TrainingError, listing all conflicts: one name in different groups, or names that differ in case or spaces only.
    """
    merged: dict[str, Label] = {}
    first: dict[str, str] = {}
    alike: dict[str, str] = {}
    faults: list[str] = []
    for brain_id, table in tables.items():
        for label in table.labels:
            known = merged.get(label.name)
            if known is not None:
                if known.group != label.group:
                    faults.append(
                        f"{label.name!r} is of group {known.group!r} in {first[label.name]} and of {label.group!r} in "
                        f"{brain_id}"
                    )
                continue
            plain = "".join(label.name.split()).casefold()
            if plain in alike:
                other = alike[plain]
                faults.append(f"{other!r} in {first[other]} and {label.name!r} in {brain_id} differ in case or spaces")
            alike[plain] = label.name
            first[label.name] = brain_id
            merged[label.name] = label.model_copy(update={"id": _free_id(label.id, merged)})
    if faults:
        raise TrainingError(f"the label tables do not fit each other: {'; '.join(faults)}; correct labels.csv")
    return LabelTable(labels=tuple(merged.values()))


def _free_id(wanted: int, merged: Mapping[str, Label]) -> int:
    taken = {one.id for one in merged.values()}
    if wanted not in taken:
        return wanted
    return next(one for one in range(1, 65536) if one not in taken)


def named_alike(
    classes: Sequence[LabelClass], table: LabelTable | None, by_group: bool
) -> tuple[tuple[LabelClass, ...], tuple[LabelClass, ...]]:
    """Classes with the ids that a brain's table gives their names, and the table's other classes.

    A class that the table does not name has no ids.
    """
    stated = table.classes(by_group) if table else ()
    ids = {one.name: one.ids for one in stated}
    names = {one.name for one in classes}
    known = tuple(one.model_copy(update={"ids": ids.get(one.name, ())}) for one in classes)
    return known, tuple(one for one in stated if one.name not in names)
