"""Tables that people write: CSV files in, rows with their numbers and every fault of them out."""

import csv
import io
import re
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
    that still bear the mark `UNCONFIRMED` are faults. Empty columns at the end are no columns, blank lines above the
    header are passed over, and a first line that names the separator is no row. Raises ManifestError if the file cannot
    be read as a table with the `required` columns.
    """
    text = _text(path)
    separator = _SEPARATOR_LINE.match(text)
    text = text[separator.end() :] if separator else text
    delimiter = separator[1] if separator else _delimiter(text, required)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ManifestError(str(path), [f"not a CSV file: {error}"]) from None
    lines = [[cell.strip() for cell in cells] for cells in lines]
    top = next((number for number, cells in enumerate(lines, start=1) if any(cells)), 1)
    header = _named(lines[top - 1 :])
    faults = _header_faults(header, known, required, top)
    if faults:
        raise ManifestError(str(path), faults)
    rows: list[tuple[int, dict[str, str]]] = []
    for number, cells in enumerate(lines[top:], start=top + 1):
        if not any(cells):
            continue
        if not len(cells) >= len(header) >= _reach(cells):
            faults.append(f"row {number}: {len(cells)} cells where the header has {len(header)}")
            continue
        row = {name: cell for name, cell in zip(header, cells, strict=False) if cell}
        for name in [name for name, cell in row.items() if drafted and cell.startswith(UNCONFIRMED)]:
            faults.append(
                f"row {number}: {name} {row[name]!r} was read from a file name; check it and remove the {UNCONFIRMED!r}"
            )
            row[name] = row[name].removeprefix(UNCONFIRMED)  # the rest of the row is looked at all the same
        rows.append((number, row))
    return rows, faults


_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""How files of Excel, Numbers and LibreOffice begin, whatever they are called."""


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if content.startswith(_WORKBOOKS):
            raise ManifestError(str(path), ["is a workbook of a spreadsheet, not a table; save it as 'CSV UTF-8'"])
        text = content.decode("utf-8-sig")
    except FileNotFoundError:
        raise ManifestError(str(path), ["the file does not exist"]) from None
    except OSError as error:
        raise ManifestError(str(path), [f"cannot be read: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ManifestError(
            str(path), [f"not a readable UTF-8 text file: {error}; save the table as 'CSV UTF-8'"]
        ) from None
    if "\0" in text:
        raise ManifestError(str(path), ["holds NUL bytes: the file is half copied or not a CSV file"])
    return text


_SEPARATOR_LINE = re.compile(r'"?sep=([,;|\t])"?[,;|\t]*(?:\r\n?|\n)', re.IGNORECASE)
"""A first line for Excel, which says how the cells below are separated and is never shown."""


def _delimiter(text: str, required: tuple[str, ...]) -> str:
    """The character between cells: spreadsheets of some countries save semicolons, or tabs, under the name of CSV.

    That with which the header names the most of the required columns.
    """
    head = next((line for line in re.split(r"[\r\n]+", text) if line.strip(" ,;\t")), "")

    def fit(character: str) -> tuple[int, int]:
        names = {name.strip(' "') for name in head.split(character)}
        return len(names & set(required)), head.count(character)

    return max(",;\t", key=fit)


def _reach(cells: list[str]) -> int:
    """How many cells there are up to the last that is not blank."""
    return max((place for place, cell in enumerate(cells, start=1) if cell), default=0)


def _named(lines: list[list[str]]) -> list[str]:
    """The cells of the first line, without those at its end that stand above nothing."""
    if not lines:
        return []
    used = max((_reach(cells) for cells in lines[1:]), default=0)
    return lines[0][: max(_reach(lines[0]), used)]


def _header_faults(header: list[str], known: tuple[str, ...] | None, required: tuple[str, ...], row: int) -> list[str]:
    faults = [f"row {row}: column {name} is missing" for name in required if name not in header]
    if known is not None:
        faults += [
            f"row {row}: column {name!r} is not known; the columns are {', '.join(known)}"
            if name
            else f"row {row}: column {place} has no name; name it or clear it"
            for place, name in enumerate(header, start=1)
            if name not in known
        ]
    twice = sorted({name for name in header if name and header.count(name) > 1})
    return faults + [f"row {row}: column {name!r} appears twice" for name in twice]


_DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")


def row_faults(number: int, error: ValidationError) -> list[str]:
    """What is wrong with a row, one sentence a cell."""
    return [f"row {number}: {_fault(item['loc'], item['msg'], item['input'])}" for item in error.errors()]


def _fault(location: Iterable[int | str], message: str, value: Any) -> str:
    field = next((str(part) for part in location), "")
    text = message.removeprefix("Value error, ")
    if not field:
        return text
    if text == "Field required":
        return f"{field} is blank; it is needed"
    comma = "; decimals are written with a point" if _DECIMAL_COMMA.fullmatch(str(value)) else ""
    return f"{field} {value!r}: {text}{comma}"


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
