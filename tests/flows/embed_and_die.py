"""Embeds the sections of a store in forked processes that kill themselves, one after the other.

`python -m tests.flows.embed_and_die STORE ENCODER OUTCOMES [KIND:COUNT ...]`: every process goes on with what the one
before left, until it dies at the so-manyth moment of a kind; the last one lives. With `together` in place of moments
two processes embed half of the sections each, at once. Nothing is said through pipes: the exit codes are written into
the file OUTCOMES.
"""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from cytoarch.embeddings import EmbedSettings, dense
from cytoarch.steps.embeddings import EmbeddingsStep
from cytoarch.steps.encoders import encoder_for
from cytoarch.steps.opened import open_brain
from cytoarch.steps.running import make_together
from cytoarch.store.staging import Staging


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Says when the so-manyth moment of a kind is there; threads are counted together."""

    def __init__(self, kind: str, count: int) -> None:
        self.kind, self.left, self.lock = kind, count, threading.Lock()

    def due(self, kind: str) -> bool:
        with self.lock:
            self.left -= kind == self.kind
            return kind == self.kind and self.left == 0


def arm(moment: str) -> None:
    """Die after a file is entered, in the middle of one, or before something is renamed."""
    kind, count = moment.split(":")
    countdown = Countdown(kind, int(count))
    enter, write, rename, replace = Staging.enter, Staging.write, Path.rename, Path.replace

    def entered(self: Staging, key: str, mark: Any) -> None:
        enter(self, key, mark)
        if countdown.due("enter"):
            die()

    def written(self: Staging, key: str, parts: bytes | Iterable[bytes]) -> None:
        if countdown.due("write"):
            path = self.path / key
            path.parent.mkdir(parents=True, exist_ok=True)
            content = parts if isinstance(parts, bytes) else b"".join(parts)
            path.write_bytes(content[: len(content) // 2])
            die()
        write(self, key, parts)

    def moved(how: Any) -> Any:
        def move(self: Path, target: Path) -> Path:
            if countdown.due("rename"):
                die()
            return how(self, target)

        return move

    Staging.enter, Staging.write = entered, written  # type: ignore[method-assign]
    Path.rename, Path.replace = moved(rename), moved(replace)  # type: ignore[method-assign]


def embed(root: Path, encoder: str, part: slice) -> None:
    """Embed some sections in one group, as the task does."""
    with open_brain(root, "B1") as brain:
        step = EmbeddingsStep.of(EmbedSettings(encoder=encoder, tile_px=64, batch_size=3), brain)
        outcomes, _ = make_together(step, brain, [one.section_id for one in brain.sections[part]])
    assert all(one.status in ("made", "current") for one in outcomes), outcomes


def forked(root: Path, encoder: str, outcomes: Path, moment: str = "", part: slice = slice(None)) -> int:
    """The id of a process that embeds until its moment has come."""
    child = os.fork()
    if child:
        return child
    try:
        if moment:
            arm(moment)
        embed(root, encoder, part)
    except BaseException:  # noqa: BLE001 - nothing of the child may go on in this copy of its parent
        outcomes.with_suffix(".error").write_text(traceback.format_exc())
        os._exit(1)
    os._exit(0)


def ended(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: Path, encoder: str, outcomes: Path, moments: list[str]) -> None:
    torch.set_num_threads(1)
    dense.SHARD_PX = 128  # several shards a section
    encoder_for(EmbedSettings(encoder=encoder, tile_px=64))  # loaded once, for all of them
    if moments == ["together"]:
        with open_brain(root, "B1"):  # held by the run, whose workers own disjoint sections
            children = [forked(root, encoder, outcomes, part=slice(first, None, 2)) for first in (0, 1)]
            codes = [ended(child) for child in children]
    else:
        codes = [ended(forked(root, encoder, outcomes, moment)) for moment in [*moments, ""]]
    outcomes.write_text(" ".join(map(str, codes)))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
