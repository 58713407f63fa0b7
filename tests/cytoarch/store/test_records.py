"""What tells a product from one made of other things, and what a record file must be to be believed."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from cytoarch.digests import FileSeal, canonical_json, sealed_json, values_digest
from cytoarch.errors import StoreError
from cytoarch.store.products import Work
from cytoarch.store.records import RECORD_FORMAT, Record, fingerprint, read_committed, read_record


def record(**changes: Any) -> Record:
    made = {"step": "tissue", "name": "slide", "section": "s1", "fingerprint": "f" * 64, "inputs": {}, "settings": {}}
    return Record(**{**made, "files": {}, **changes})


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


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_a_fingerprint_is_the_sha256_of_one_canonical_text(count: int) -> None:
    """However many inputs there are: it is taken in parts."""
    inputs = {f"scan/s{number}": f"{number:064x}" for number in range(count)}
    settings = {"size_um": 4.0, "of": {"b": [1, None], "a": "\u00e4"}}
    parts = {"format": RECORD_FORMAT, "step": "x", "version": 3, "inputs": inputs, "settings": settings}
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert fingerprint("x", Work(3, inputs, settings)) == hashlib.sha256(text.encode()).hexdigest()


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


def test_a_record_of_earlier_versions_is_read_as_well(tmp_path: Path) -> None:
    """Its sha256 was that of the canonical JSON, in a file that was indented as a whole."""
    written = record(files={"a": FileSeal(sha256="0" * 64, size_bytes=1)}, facts={"name": "\u00e9", "um": 0.1})
    content = written.model_dump(mode="json")
    digest = hashlib.sha256(canonical_json(content).encode()).hexdigest()
    text = json.dumps({"sha256": digest, "content": content}, indent=1, ensure_ascii=False)
    (tmp_path / "s1.json").write_text(text)
    assert read_record(tmp_path / "s1.json") == written
    (tmp_path / "s1.json").write_text(text.replace("0.1", "0.2"))
    with pytest.raises(StoreError, match="its content is not what its sha256 says"):
        read_record(tmp_path / "s1.json")


def test_no_bit_of_a_record_can_be_turned_over_unseen(tmp_path: Path) -> None:
    path = tmp_path / "s1.json"
    whole = sealed_json(record(facts={"um": 0.25, "name": "x"}))
    for at in range(8 * len(whole)):
        content = bytearray(whole)
        content[at // 8] ^= 1 << at % 8
        path.write_bytes(content)
        with pytest.raises(StoreError):
            read_record(path)


@pytest.mark.parametrize("cut", [b"", b"{", b'{\n"sha256": "'])
def test_a_record_that_was_cut_short_is_none(tmp_path: Path, cut: bytes) -> None:
    whole = sealed_json(record())
    for content in (cut, whole[:-1], whole[:-3], whole + b"\n", whole + b" "):
        (tmp_path / "s1.json").write_bytes(content)
        with pytest.raises(StoreError):
            read_record(tmp_path / "s1.json")


def test_what_is_remembered_of_a_record_is_what_it_says() -> None:
    seal = FileSeal(sha256="0" * 64, size_bytes=1)
    facts = {"area_mm2": 3.5, "sizes": [1, 2], "of": {"deep": None}}
    whole = record(files={"a": seal}, inputs={"scan": "00"}, sources={"scan": "sections/scan/s1"}, facts=facts)
    kept = whole.committed()
    assert (kept.product, kept.fingerprint, kept.digest) == (whole.product, whole.fingerprint, whole.digest)
    assert (kept.inputs, kept.sources, kept.facts) == (whole.inputs, whole.sources, facts)
    assert kept.facts_digest == values_digest(facts)


def test_what_is_remembered_is_the_same_whatever_it_was_packed_against(tmp_path: Path) -> None:
    seal = FileSeal(sha256="0" * 64, size_bytes=1)
    inputs, facts = {"scan": "01" * 32, "stated": '{"flip":"none"}'}, {"area_mm2": 3.5, "remarks": "Zellb\u00e4nder \n"}
    whole = record(files={"a": seal}, inputs=inputs, facts=facts, settings={"pixel_size_um": 64.0})
    (tmp_path / "s1.json").write_bytes(sealed_json(whole))
    other = record(inputs={"scan": "02" * 32, "stated": '{"flip":"none"}'}, facts={"area_mm2": 2.5, "remarks": ""})
    alone, sizes = read_committed(str(tmp_path / "s1.json"))
    beside, _ = read_committed(str(tmp_path / "s1.json"), other.committed().unpacked)
    assert sizes == {"a": 1}
    for kept in (alone, beside):
        assert (kept.inputs, kept.settings, kept.facts) == (inputs, {"pixel_size_um": 64.0}, facts)
        assert kept == whole.committed() != other.committed()
        assert kept != record(files={"a": seal}, inputs=inputs, settings={"pixel_size_um": 64.0}).committed()
    assert len({alone, beside}) == 1


def test_a_record_of_another_format_is_none(tmp_path: Path) -> None:
    (tmp_path / "s1.json").write_bytes(sealed_json(record(format=RECORD_FORMAT - 1)))
    with pytest.raises(StoreError, match=rf"format {RECORD_FORMAT - 1}, not {RECORD_FORMAT}"):
        read_record(tmp_path / "s1.json")
