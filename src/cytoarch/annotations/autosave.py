"""A drawing in progress, kept on disk stroke by stroke: a crash loses at most the stroke that is being drawn.

The file is a log that only grows. Every line is an event as JSON with its own checksum; a line that a crash cut short
is the last one and is left out. What was undone is an event too, so that nothing anybody drew is ever lost.
"""

import errno
import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import google_crc32c
from pydantic import ValidationError

from cytoarch.annotations.scribbles import Annotation, Scribble
from cytoarch.brains import Label, LabelTable
from cytoarch.digests import canonical_json
from cytoarch.errors import StoreError
from cytoarch.store.disk import writing


class DrawingClosedError(StoreError):
    """What works on after a drawing was closed cannot note that in it."""


@dataclass
class Drawing:
    """Scribbles that may still change, with their classes; every change is on disk before it is seen here."""

    path: Path
    labels: tuple[Label, ...] = ()
    scribbles: list[Scribble] = field(default_factory=list)
    undone: list[Scribble] = field(default_factory=list)
    saved: str = ""
    """The version in the store that holds all of this; blank: there is none, or something was drawn since."""
    last_saved: str = ""
    """The last version in the store that all of was drawn or taken up here, whatever was drawn since; blank: none."""
    rounds: int = 0
    """How often a model was trained on it."""
    closed: bool = field(default=False, compare=False)
    """Its file may be another window's by now: whatever still works with it writes no more."""
    _writing: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """A model is trained beside the window in which strokes are drawn."""

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[Self]:
        """The drawing in a file, made where it is not there, held so that no second window draws in it.

        Raises StoreError if another process has it, or if a line before the last one is damaged.
        """
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        drawing = cls(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            drawing._replay()
            yield drawing
        except BlockingIOError:
            raise StoreError(
                f"{path.stem} is drawing on this brain in another window; close it, or draw under another name"
            ) from None
        finally:
            with drawing._writing:
                drawing.closed = True
            os.close(handle)

    @property
    def table(self) -> LabelTable | None:
        """What the labels mean; None: there is no class yet."""
        return LabelTable(labels=self.labels) if self.labels else None

    def annotation(self, brain_id: str) -> Annotation:
        """What is drawn, to be committed. Raises StoreError if there is no class yet."""
        if not self.labels:
            raise StoreError("there is no class yet: name one before you draw, or take those of another brain")
        author = self.path.stem
        table = LabelTable(labels=self.labels)
        return Annotation(brain_id=brain_id, author=author, table=table, scribbles=tuple(self.scribbles))

    def draw(self, scribble: Scribble) -> None:
        """Add a scribble. Raises StoreError if its label is no class, or if it cannot be kept."""
        self._check_class(scribble.label)
        self._do("draw", scribble.model_dump(mode="json"))

    def _check_class(self, label: int) -> None:
        if label and label not in {one.id for one in self.labels}:
            raise StoreError(f"label {label} is no class of this drawing; add the class first")

    def undo(self) -> Scribble | None:
        """Take the last scribble back; None where there is none."""
        if not self.scribbles:
            return None
        self._do("undo", None)
        return self.undone[-1]

    def redo(self) -> Scribble | None:
        """Draw again what was taken back last; None where there is nothing. Raises StoreError if its class is gone."""
        if not self.undone:
            return None
        self._check_class(self.undone[-1].label)
        self._do("redo", None)
        return self.scribbles[-1]

    def set_classes(self, labels: tuple[Label, ...]) -> None:
        """Replace the table of classes.

        Raises StoreError if ids or names repeat, or if a class is left out that strokes have, or would have again.
        """
        ids, names = [one.id for one in labels], [one.name for one in labels]
        if len(set(ids)) < len(ids) or len(set(names)) < len(names):
            raise StoreError("two classes share a number or a name; every class needs its own")
        lost = sorted({one.label for one in (*self.scribbles, *self.undone) if one.label} - set(ids))
        if lost:
            raise StoreError(
                f"classes {lost} have scribbles, those that were undone and can come back with redo included; a class "
                "can be removed when its scribbles are undone and another one is drawn"
            )
        self._do("classes", [one.model_dump(mode="json") for one in labels])

    def note_training(self) -> None:
        """A model was trained: what is drawn from now on belongs to the next round."""
        self._do("trained", None)

    def note_saved(self, version: str) -> None:
        """All of this is in the store as a version."""
        self._do("saved", version)

    def note_included(self, version: str) -> None:
        """All of a version in the store is here, and more; what was undone since stays undone."""
        self._do("included", version)

    def _do(self, what: str, value: Any) -> None:
        text = canonical_json([what, value])
        line = f"{google_crc32c.value(text.encode()):08x} {text}\n".encode()
        with self._writing, writing(self.path):
            self._append(line)
            self._apply(what, value)

    def _append(self, line: bytes) -> None:
        if self.closed:
            raise DrawingClosedError(
                f"{self.path}: the drawing was closed before this was noted; what is in the store by now is found when "
                "it is opened again"
            )
        with self.path.open("ab", buffering=0) as file:
            start = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) != len(line):
                    raise OSError(errno.ENOSPC, "the line was not written whole")
                os.fsync(file.fileno())
            except OSError:
                os.ftruncate(file.fileno(), start)  # else the next stroke would be glued to a part of this one
                raise

    def _apply(self, what: str, value: Any) -> None:
        self.saved = value if what == "saved" else self.saved if what == "trained" else ""
        if what == "draw":
            self.scribbles.append(Scribble.model_validate(value))
            self.undone.clear()
        elif what == "undo":
            self.undone.append(self.scribbles.pop())
        elif what == "redo":
            self.scribbles.append(self.undone.pop())
        elif what == "classes":
            self.labels = tuple(Label.model_validate(one) for one in value)
        elif what == "trained":
            self.rounds += 1
        elif what in {"saved", "included"}:
            self.last_saved = value

    def _replay(self) -> None:
        """Do again what the file tells, and cut off a last line that was not finished."""
        whole = 0
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                self._apply(*_event(line))
            except (ValueError, LookupError, TypeError, ValidationError) as error:
                if number < len(lines):
                    raise StoreError(
                        f"{self.path}: line {number} of {len(lines)} is damaged ({error}); restore the file from a copy"
                    ) from None
                with self.path.open("r+b") as file:
                    file.truncate(whole)
                return
            whole += len(line)


def _event(line: bytes) -> tuple[str, Any]:
    """What a line tells. Raises ValueError if it is not what was written."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if not line.endswith(b"\n") or int(checksum, 16) != google_crc32c.value(text):
        raise ValueError("its checksum differs")
    what, value = json.loads(text)
    return str(what), value
