"""Work on untrusted files in child processes with limits: a bomb or a crashing decoder costs one piece of work.

A child is a Python of its own that imports one function and calls it; arguments, progress and result pass through a
socket as JSON lines, pixels never. Children are kept for the next piece of work, since starting one takes longer than
a small section, and are replaced after any fault. Whoever starts one gives it the brain's open lock with the work: if
the parent is killed, the brain stays locked until the child is gone too. It goes at once: the system ends it when the
pipe to its parent closes, whatever it is computing.
"""

import atexit
import fcntl
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, NoReturn, cast

from cytoarch.errors import SectionError, StoreError
from cytoarch.progress import Progress

Work = Callable[[Mapping[str, Any], Progress], Mapping[str, Any]]
"""(JSON arguments, progress) -> JSON result"""

MOST_WORKS = 64
"""A child is replaced after so many pieces of work, whatever they left behind in it."""


@dataclass(frozen=True)
class Limits:
    """What a child may take."""

    memory_bytes: int
    """Private memory, beyond which allocating fails."""
    stall_s: float
    """Seconds without any progress after which it is killed."""


class Contained:
    """Children that do contained work, one piece each at a time; as many as are asked at once."""

    def __init__(self) -> None:
        self._idle: list[_Child] = []
        self._lock = threading.Lock()
        atexit.register(self.close)

    def run(
        self,
        work: str,
        arguments: Mapping[str, Any],
        limits: Limits,
        on_progress: Progress | None = None,
        held: int | None = None,
        subject: str = "the work",
    ) -> dict[str, Any]:
        """What the function `work` ("module:name") gives for the arguments, called in a child.

        `held` is an open file that the child keeps open while it works; `subject` begins the errors that the function
        does not raise itself. Raises the SectionError or StoreError the function raised; SectionError if the child
        crashed, was killed or made no progress for too long; RuntimeError for any other fault.
        """
        child = self._take(limits)
        try:
            result = child.do({"work": work, "arguments": arguments}, limits, on_progress, held, subject)
        except BaseException:
            child.kill()
            raise
        if isinstance(result, Exception):
            child.kill()  # a decoder that met bad data may have been left in any state
            raise result
        self._give_back(child)
        return result

    def close(self) -> None:
        """End the children that wait for work."""
        with self._lock:
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def _take(self, limits: Limits) -> "_Child":
        with self._lock:
            for place, child in enumerate(self._idle):
                if child.memory_bytes == limits.memory_bytes and child.alive:
                    return self._idle.pop(place)
        return _Child(limits.memory_bytes)

    def _give_back(self, child: "_Child") -> None:
        child.works += 1
        if child.works >= MOST_WORKS:
            child.kill()
            return
        with self._lock:
            self._idle.append(child)


@dataclass
class _Child:
    """A child process and our end of its socket."""

    memory_bytes: int
    works: int = 0
    process: "subprocess.Popen[bytes]" = field(init=False)
    channel: socket.socket = field(init=False)

    def __post_init__(self) -> None:
        ours, theirs = socket.socketpair()
        leash, self._hand = os.pipe()
        handles = [theirs.fileno(), leash]
        with theirs:
            self.process = subprocess.Popen(  # noqa: S603 - our own Python and module; -P: nothing from this folder
                [sys.executable, "-P", "-m", "cytoarch.containment", *map(str, handles), str(self.memory_bytes)],
                pass_fds=handles,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **_FRUGAL},
            )
        os.close(leash)
        self.channel = ours
        self._lines = ours.makefile("rb")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def do(
        self, asked: Mapping[str, Any], limits: Limits, on_progress: Progress | None, held: int | None, subject: str
    ) -> "dict[str, Any] | Exception":
        """The result, or the error the work raised."""
        self.channel.settimeout(limits.stall_s)
        message = json.dumps(asked).encode()
        fds = [] if held is None else [held]
        try:
            # the length first, with the file: a message may be longer than what is received in one go
            socket.send_fds(self.channel, [len(message).to_bytes(8, "little")], fds)
            self.channel.sendall(message)
            while True:
                line = self._lines.readline()
                if not line.endswith(b"\n"):
                    return self._death(subject)
                answer = json.loads(line)
                if "result" in answer:
                    return cast("dict[str, Any]", answer["result"])
                if answer.get("error") == "memory":
                    return SectionError(
                        f"{subject}: reading it needs more memory than a section may take; raise memory_gb, or save "
                        "the scan as a tiled TIFF"
                    )
                if "error" in answer:
                    return _ERRORS.get(answer["error"], RuntimeError)(answer["text"])
                if on_progress is not None:
                    on_progress(answer["done"], answer["total"])
        except TimeoutError:
            self.kill()
            return SectionError(
                f"{subject}: made no progress for {limits.stall_s:g} s and was stopped: a damaged file, or storage "
                "that is too slow; raise stall_s if it is the storage"
            )
        except (BrokenPipeError, ConnectionResetError):
            return self._death(subject)

    def _death(self, subject: str) -> Exception:
        code = self.process.wait()
        if code == -signal.SIGKILL:
            return SectionError(f"{subject}: the process reading it was killed, most likely for want of memory")
        if code < 0:
            return SectionError(
                f"{subject}: reading it crashed the decoder ({signal.Signals(-code).name}); the file is damaged"
            )
        return SectionError(f"{subject}: reading it ended the process that read it (exit code {code})")

    def kill(self) -> None:
        """End the child at once."""
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self.channel.close()
        if self._hand >= 0:
            os.close(self._hand)
            self._hand = -1


_FRUGAL = {
    "OMP_NUM_THREADS": "1",  # libraries start no threads of their own: a child's threads are those it is asked to use
    "OPENBLAS_NUM_THREADS": "1",
    "VIPS_CONCURRENCY": "2",
    # memory that hardly grows with the size of a scan: with glibc's moving threshold it lay in ever more pieces
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 20),  # what is freed is kept for the next tile; keeping more is a tenth faster
}
"""Environment of a child."""

_ERRORS: dict[str, Callable[[str], Exception]] = {"section": SectionError, "store": StoreError}


# -- in the child ------------------------------------------------------------------------------------------------------


def serve(handle: int, leash: int, memory_bytes: int) -> NoReturn:
    """Do the work that comes through a socket until it closes; the life of a child.

    `leash` is the end of a pipe of which only the parent holds the other: closing it ends this process.
    """
    fcntl.fcntl(leash, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(leash, fcntl.F_SETFL, fcntl.fcntl(leash, fcntl.F_GETFL) | os.O_ASYNC)  # SIGIO's default is to end
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told, and decides
    channel = socket.socket(fileno=handle)
    works: SimpleQueue[tuple[bytes, list[int]]] = SimpleQueue()
    threading.Thread(target=_listen, args=(channel, works), daemon=True).start()
    while True:
        message, held = works.get()
        answer = _answer(message, lambda done, total: _send(channel, {"done": done, "total": total}))
        for each in held:
            os.close(each)
        _send(channel, answer)


def _listen(channel: socket.socket, works: "SimpleQueue[tuple[bytes, list[int]]]") -> None:
    """Take in messages; when the parent is gone, so is the child, whatever it is doing."""
    try:
        while True:
            head, held, _, _ = socket.recv_fds(channel, 8, 1)
            size = int.from_bytes(head, "little")
            parts: list[bytes] = []
            while head and size:
                part = channel.recv(min(size, 1 << 16))
                if not part:
                    break
                parts.append(part)
                size -= len(part)
            if not head or size:
                break
            works.put((b"".join(parts), list(held)))
    finally:
        os._exit(0)


def _answer(message: bytes, on_progress: Progress) -> dict[str, Any]:
    try:
        asked = json.loads(message)
        module, name = asked["work"].split(":")
        work: Work = getattr(importlib.import_module(module), name)
        result = work(asked["arguments"], on_progress)
        return {"result": json.loads(json.dumps(result))}  # what cannot be told is a fault of the work
    except SectionError as error:
        return {"error": "section", "text": str(error)}
    except StoreError as error:
        return {"error": "store", "text": str(error)}
    except MemoryError:
        return {"error": "memory", "text": ""}
    except Exception:  # noqa: BLE001 - raised again in the parent
        return {"error": "fault", "text": traceback.format_exc()}


def _send(channel: socket.socket, answer: Mapping[str, Any]) -> None:
    try:
        channel.sendall(json.dumps(answer).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):  # the parent is gone
        os._exit(0)


if __name__ == "__main__":
    serve(*map(int, sys.argv[1:4]))
