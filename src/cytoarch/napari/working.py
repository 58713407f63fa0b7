"""What goes on beside the window: one deed that was asked for at a time, and looking ahead while nothing is asked."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from napari.qt.threading import GeneratorWorker, thread_worker
from napari.utils.notifications import notification_manager

from cytoarch.errors import CytoarchError
from cytoarch.napari.panel import Panel

WAIT_MS = 60_000
"""What is going on when a window is closed is waited for so long: a block is written whole, or not at all."""

Work = Callable[[], Iterator[Any]]


class Working:
    """Runs work in threads and tells the panel of it; what it yields is handed on in the thread of the window."""

    def __init__(self, panel: Panel, on_end: Callable[[], None]) -> None:
        self.panel, self.on_end = panel, on_end
        self.deed: Any = None
        """The worker of what was asked for."""
        self.looking: Any = None
        """The worker that looks ahead."""

    def do(self, work: Work, on_yield: Callable[[Any], None], what: str) -> None:
        """Do something that was asked for; one thing at a time."""
        if self.deed is not None:
            self.panel.say("Still at work: wait for it, or press Cancel.")
            return
        self.rest()
        self.panel.say(f"{what} ...")
        self.panel.busy(busy=True)
        self.deed = _worker(work, on_yield, self._failed)
        self.deed.finished.connect(self._ended)
        self.deed.start()

    def look_ahead(self, work: Work, on_yield: Callable[[Any], None]) -> None:
        """Do something that nobody waits for, unless something is going on; what was looked at before is left."""
        if self.deed is not None:
            return
        self.rest()
        self.looking = _worker(work, on_yield, self._ahead_failed)
        self.looking.finished.connect(partial(self._looked, self.looking))
        self.looking.start()

    def rest(self) -> None:
        """Look no further ahead than the present part."""
        if self.looking is not None:
            self.looking.quit()
            self.looking = None
            self.panel.ahead.setText("")

    def cancel(self) -> None:
        """Stop what is going on after its present part."""
        self.rest()
        if self.deed is not None:
            self.deed.quit()
            self.panel.say("Stopped; what was finished is kept.")

    def end(self) -> None:
        """Stop all, and wait until it has stopped."""
        for one in (self.deed, self.looking):
            if one is not None:
                one.quit()
        GeneratorWorker.await_workers(WAIT_MS)  # also one that was left while it computed its last part
        self.deed = self.looking = None

    def _failed(self, error: Exception) -> None:
        if isinstance(error, CytoarchError):
            self.panel.say(str(error))
            return
        self.panel.say(f"Something broke ({error!r}). What you drew is kept; please report it with the details below.")
        notification_manager.receive_error(type(error), error, error.__traceback__)

    def _ended(self) -> None:
        self.deed = None
        self.panel.busy(busy=False)
        self.on_end()

    def _ahead_failed(self, error: Exception) -> None:
        """Nobody asked: it is told where it goes on, and again when it is asked for."""
        self.panel.ahead.setText(str(error) if isinstance(error, CytoarchError) else f"Looking ahead broke: {error!r}")

    def _looked(self, worker: Any) -> None:
        if worker is self.looking:  # else another one looks by now
            self.looking = None
            self.panel.ahead.setText("")


def _worker(work: Work, on_yield: Callable[[Any], None], on_error: Callable[[Exception], None]) -> Any:
    """A worker that is not started yet."""

    def steps() -> Iterator[Any]:
        yield from work()

    worker = thread_worker(steps, ignore_errors=True)()  # they are told by `on_error`
    worker.yielded.connect(on_yield)
    worker.errored.connect(on_error)
    return worker
