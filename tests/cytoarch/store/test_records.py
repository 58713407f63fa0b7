"""What tells a product from one made of other things, and what a record file must be to be believed."""

from pathlib import Path
from typing import Any

import pytest

from cytoarch.digests import FileSeal, sealed_json
from cytoarch.errors import StoreError
from cytoarch.store.products import Work
from cytoarch.store.records import RECORD_FORMAT, Record, fingerprint, read_record


def record(**changes: Any) -> Record:
    facts = {"step": "tissue", "name": "otsu", "section": "s1", "fingerprint": "f", "inputs": {}, "settings": {}}
    return Record(**{**facts, "files": {}, **changes})


def test_a_fingerprint_changes_with_everything_a_product_depends_on() -> None:
    base = ("tissue", Work(1, {"scan": "00"}, {"size_um": 4.0, "kind": None}))
    others = [
        ("labels", Work(1, {"scan": "00"}, {"size_um": 4.0, "kind": None})),
        ("tissue", Work(2, {"scan": "00"}, {"size_um": 4.0, "kind": None})),
        ("tissue", Work(1, {"scan": "01"}, {"size_um": 4.0, "kind": None})),
        ("tissue", Work(1, {"scans": "00"}, {"size_um": 4.0, "kind": None})),
        ("tissue", Work(1, {"scan": "00", "more": ""}, {"size_um": 4.0, "kind": None})),
        ("tissue", Work(1, {"scan": "00"}, {"size_um": 4.5, "kind": None})),
        ("tissue", Work(1, {"scan": "00"}, {"size_um": 4.0, "kind": "None"})),
        ("tissue", Work(1, {"scan": "00"}, {"size_um": 4.0})),
    ]
    assert len({fingerprint(step, work) for step, work in [base, *others]}) == 1 + len(others)


def test_a_fingerprint_does_not_depend_on_the_order_in_which_things_are_named() -> None:
    assert fingerprint("x", Work(1, {"a": "1", "b": "2"}, {"c": 1, "d": [1, 2]})) == fingerprint(
        "x", Work(1, {"b": "2", "a": "1"}, {"d": [1, 2], "c": 1})
    )


def test_a_setting_that_is_no_number_has_no_fingerprint() -> None:
    with pytest.raises(ValueError, match="JSON"):
        fingerprint("x", Work(1, {}, {"size_um": float("nan")}))


def test_the_digest_of_a_record_is_that_of_its_files_and_of_nothing_else() -> None:
    seal, other = FileSeal(sha256="0" * 64, size_bytes=1), FileSeal(sha256="1" * 64, size_bytes=1)
    base = record(files={"a": seal, "b": other})
    assert base.digest == record(files={"b": other, "a": seal}, fingerprint="g", facts={"when": "now"}).digest
    assert base.digest != record(files={"a": other, "b": seal}).digest
    assert base.digest != record(files={"a": seal}).digest


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    seal = FileSeal(sha256="0" * 64, size_bytes=1)
    written = record(files={"a": seal}, inputs={"scan": "00"}, sources={"scan": "sections/scan/s1"}, view=True)
    (tmp_path / "s1.json").write_bytes(sealed_json(written))
    assert read_record(tmp_path / "s1.json") == written


def test_a_record_of_another_format_is_none(tmp_path: Path) -> None:
    (tmp_path / "s1.json").write_bytes(sealed_json(record(format=RECORD_FORMAT - 1)))
    with pytest.raises(StoreError, match=rf"format {RECORD_FORMAT - 1}, not {RECORD_FORMAT}"):
        read_record(tmp_path / "s1.json")
