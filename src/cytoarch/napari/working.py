"""What goes on beside the window: one deed that was asked for at a time, looking ahead meanwhile, and reading."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from napari.qt.threading import GeneratorWorker, thread_worker
from napari.utils.notifications import notification_manager, show_info, show_warning
from qtpy.QtCore import QThreadPool

from cytoarch.errors import CytoarchError
from cytoarch.napari.panel import Panel

LEFT_S = 30.0
"""A brain is opened when what was left at work has ended, which may be writing it; so long is waited at most."""

LEAST_THREADS = 4
"""On a machine of few cores a section is read while a model is trained, and does not wait for it."""

Work = Callable[[], Iterator[Any]]


class Working:
    """Runs work in threads and tells the panel of it; what it yields is handed on in the thread of the window."""

    def __init__(self, panel: Panel, on_end: Callable[[], None]) -> None:
        self.panel, self.on_end = panel, on_end
        self.deed: Any = None
        """The worker of what was asked for."""
        self.looking: Any = None
        """The worker that looks ahead."""
        self.reading: dict[str, Any] = {}
        """The workers that read what is to be shown, by what it is."""
        self._left: list[Any] = []
        """The workers that nobody looks at any more: each finishes its present part, which may be written."""
        pool = QThreadPool.globalInstance()
        pool.setMaxThreadCount(max(LEAST_THREADS, pool.maxThreadCount()))

    def do(self, work: Work, on_yield: Callable[[Any], None], what: str) -> None:
        """Do something that was asked for; one thing at a time."""
        if self.deed is not None:
            self.panel.say("Still at work: wait for it, or press Cancel.")
            return
        self.rest()
        self.panel.say(f"{what} ...")
        self.panel.busy(busy=True)
        self.deed = deed = _worker(work, on_yield, self._failed)
        deed.aborted.connect(partial(self._stopped, deed))
        deed.finished.connect(partial(self._ended, deed))
        deed.start()

    def look_ahead(self, work: Work, on_yield: Callable[[Any], None]) -> None:
        """Do something that nobody waits for, unless something is going on; what was looked at before is left."""
        if self.deed is not None:
            return
        self.rest()
        self.looking = _worker(work, on_yield, self._ahead_failed)
        self.looking.finished.connect(partial(self._looked, self.looking))
        self.looking.start()

    def read(
        self, what: str, work: Work, on_yield: Callable[[Any], None], on_error: Callable[[Exception], None]
    ) -> None:
        """Read something that is to be shown; who asks for the same kind of thing again wants it instead."""
        before = self.reading.pop(what, None)
        if before is not None:
            before.quit()
            self._left = _running(*self._left, before)

        def wanted(call: Callable[[Any], None]) -> Callable[[Any], None]:
            return lambda told: call(told) if self.reading.get(what) is worker else None

        worker = _worker(work, wanted(on_yield), wanted(on_error))
        worker.finished.connect(lambda: self.reading.pop(what) if self.reading.get(what) is worker else None)
        self.reading[what] = worker
        worker.start()

    def rest(self) -> None:
        """Look no further ahead than the present part."""
        if self.looking is not None:
            self._leave(self.looking)
            self.looking = None
            self.panel.ahead.setText("")

    def cancel(self) -> None:
        """Stop what is going on after its present part."""
        self.rest()
        if self.deed is not None:
            self.deed.quit()
            self.panel.say("This stops after its present part; what was finished is kept.")

    def end(self) -> None:
        """Stop all, at once for the person: what is at work finishes its present part beside it, and keeps that."""
        if self.deed is not None:
            show_info("What was going on finishes its present part, and keeps it.")
        for one in (self.deed, self.looking, *self.reading.values()):
            if one is not None:
                self._leave(one)
        self.deed = self.looking = None
        self.reading = {}
        self.panel.busy(busy=False)
        self.panel.ahead.setText("")

    def _leave(self, one: Any) -> None:
        """Let it finish its present part; the panel hears no more of it, and speaks of something else by then."""
        one.quit()
        one.yielded.disconnect()
        one.errored.disconnect()
        one.errored.connect(_left_failed)
        self._left = _running(*self._left, one)

    def left(self) -> Callable[[], None]:
        """What waits, in a thread beside the window, until all that was left at work has ended, or for `LEFT_S`."""
        left, end = self._left, time.monotonic() + LEFT_S

        def wait() -> None:
            while _running(*left):
                if time.monotonic() > end:
                    show_warning("What was going on is still at its present part: it finishes that, and keeps it.")
                    return
                time.sleep(0.05)

        return wait

    def _failed(self, error: Exception) -> None:
        if isinstance(error, CytoarchError):
            self.panel.say(str(error))
            return
        self.panel.say(f"Something broke ({error!r}). What you drew is kept; please report it with the details below.")
        notification_manager.receive_error(type(error), error, error.__traceback__)

    def _stopped(self, worker: Any) -> None:
        if worker is self.deed and not self.panel.is_complete:
            self.panel.say("Stopped; what was finished is kept.")

    def _ended(self, worker: Any) -> None:
        if worker is self.deed:  # else the window was closed, and may be open with another by now
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


def _running(*workers: Any) -> list[Any]:
    """Those that have not ended; one that was asked to stop before it began does nothing."""
    return [one for one in workers if one.is_running]


def _left_failed(error: Exception) -> None:
    """What broke when nobody looked at it any more is told beside the panel."""
    if isinstance(error, CytoarchError):
        show_warning(str(error))
    else:
        broken = error.error if isinstance(error, _BrokeError) else error
        notification_manager.receive_error(type(broken), broken, broken.__traceback__)


class _Worker(GeneratorWorker):  # type: ignore[misc]  # napari ships no types here
    """Ends its work in its own thread, where the locks were taken that the work holds."""

    def work(self) -> Any:
        """Do it, until it is done or asked to stop."""
        try:
            return super().work()
        finally:
            self._gen.close()


class _BrokeError(Exception):
    """A RuntimeError of the work: napari takes one for its own worker that is gone, and tells nobody."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(str(error))
        self.error = error


def _worker(work: Work, on_yield: Callable[[Any], None], on_error: Callable[[Exception], None]) -> Any:
    """A worker that is not started yet."""

    def steps() -> Iterator[Any]:
        try:
            yield from work()
        except RuntimeError as error:
            raise _BrokeError(error) from error

    worker = thread_worker(steps, ignore_errors=True, worker_class=_Worker)()  # errors are told by `on_error`
    worker.yielded.connect(on_yield)
    worker.errored.connect(lambda error: on_error(error.error if isinstance(error, _BrokeError) else error))
    return worker
