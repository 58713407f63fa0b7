"""Tables that people write: CSV files in, rows with their numbers and every fault of them out."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cytoarch.errors import ManifestError

UNCONFIRMED = "?"
"""A cell that starts with this was read from a file name; a person confirms it by removing the mark."""


def csv_rows(
    path: Path, known: tuple[str, ...] | None, required: tuple[str, ...], drafted: bool = False
) -> tuple[list[tuple[int, dict[str, str]]], list[str]]:
    """The non-blank cells of each row with its row number, and faults of single rows.

    Columns that are not `known` are a fault, unless that is None. In a table that was `drafted` for a person, cells
    that still bear the mark `UNCONFIRMED` are faults. Raises ManifestError if the file cannot be read as a
    table with the `required` columns.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(str(path), ["the file does not exist"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(str(path), [f"not a readable UTF-8 text file: {error}"]) from None
    if "\0" in text:
        raise ManifestError(str(path), ["holds NUL bytes: the file is half copied or not a CSV file"])
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True))
    except csv.Error as error:
        raise ManifestError(str(path), [f"not a CSV file: {error}"]) from None
    header = [name.strip() for name in lines[0]] if lines else []
    faults = [f"row 1: column {name} is missing" for name in required if name not in header]
    faults += [
        f"row 1: column {name!r} is not known; the columns are {', '.join(known or ())}"
        for name in header
        if known is not None and name not in known
    ]
    faults += [f"row 1: column {name!r} appears twice" for name in sorted({n for n in header if header.count(n) > 1})]
    if faults:
        raise ManifestError(str(path), faults)
    rows: list[tuple[int, dict[str, str]]] = []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            faults.append(f"row {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        row = {name: cell.strip() for name, cell in zip(header, cells, strict=True) if cell.strip()}
        for name in [name for name, cell in row.items() if drafted and cell.startswith(UNCONFIRMED)]:
            faults.append(
                f"row {number}: {name} {row[name]!r} was read from a file name; check it and remove the {UNCONFIRMED!r}"
            )
            row[name] = row[name].removeprefix(UNCONFIRMED)  # the rest of the row is looked at all the same
        rows.append((number, row))
    return rows, faults


def _delimiter(text: str) -> str:
    """The character between cells: spreadsheets of some countries save semicolons, or tabs, under the name of CSV."""
    head = text.partition("\n")[0]
    return next((character for character in ",;\t" if character in head), ",")


def row_faults(number: int, error: ValidationError) -> list[str]:
    """What is wrong with a row, one sentence a cell."""
    return [f"row {number}: {_fault(item['loc'], item['msg'], item['input'])}" for item in error.errors()]


def _fault(location: Iterable[int | str], message: str, value: Any) -> str:
    field = next((str(part) for part in location), "")
    text = message.removeprefix("Value error, ")
    if not field:
        return text
    return f"{field} is blank; it is needed" if text == "Field required" else f"{field} {value!r}: {text}"


def gathered(faults: list[str]) -> list[str]:
    """Faults that are the same in several rows, said once.

    >>> gathered(["row 2: a is blank", "row 3: a is blank", "row 3: b is odd", "row 7: a is blank"])
    ['rows 2-3, 7: a is blank', 'row 3: b is odd']
    """
    rows: dict[str, list[int]] = {}
    order: dict[str, str] = {}
    for fault in faults:
        head, _, text = fault.partition(": ")
        number = head.removeprefix("row ")
        if head.startswith("row ") and number.isdigit():
            rows.setdefault(text, []).append(int(number))
            order.setdefault(f"rows {text}", text)
        else:
            order.setdefault(fault, "")
    return [f"{_row_ranges(rows[text])}: {text}" if text else fault for fault, text in order.items()]


def _row_ranges(numbers: list[int]) -> str:
    """`row 2`, or `rows 2-3, 7`."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"row {shown}" if len(runs) == 1 and len(runs[0]) == 1 else f"rows {shown}"
