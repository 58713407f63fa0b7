"""What is held in memory, within a number of bytes: a brain has thousands of sections, a window is open all day."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Held(Generic[K, V]):
    """Values that can be had again: those asked for longest ago are forgotten first. May be asked from any thread."""

    def __init__(self, budget_bytes: int, size_bytes: Callable[[V], int]) -> None:
        self.budget_bytes, self.size_bytes = budget_bytes, size_bytes
        self._values: OrderedDict[K, V] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __contains__(self, key: K) -> bool:
        """Whether it is held."""
        return key in self._values

    def find(self, key: K) -> V | None:
        """The value of a key; None: it was never kept, or is forgotten."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def keep(self, key: K, value: V) -> V:
        """Hold a value, and forget others where there are too many bytes; the last one is held, however large it is."""
        with self._lock:
            if key in self._values:
                self._bytes -= self.size_bytes(self._values.pop(key))
            self._values[key] = value
            self._bytes += self.size_bytes(value)
            while len(self._values) > 1 and self._bytes > self.budget_bytes:
                self._bytes -= self.size_bytes(self._values.popitem(last=False)[1])
        return value

    def get(self, key: K, make: Callable[[], V]) -> V:
        """The value of a key, made where it is not held."""
        found = self.find(key)
        return self.keep(key, make()) if found is None else found
