"""Prepare the next batches in a thread while the device works on this one."""

import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

import torch

T = TypeVar("T")
_END = object()


class Prefetch(Generic[T]):
    """Iterate over `source`, which runs `depth` items ahead in a thread of its own.

    An exception in the source is raised at the consumer; leaving the loop early stops the thread.
    """

    def __init__(self, source: Iterable[T], depth: int = 2) -> None:
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stop = threading.Event()
        torch.get_num_threads()  # the consumer keeps its own: a thread that never asked would take the worker's
        self._thread = threading.Thread(target=self._run, args=(source,), daemon=True)
        self._thread.start()

    def _run(self, source: Iterable[T]) -> None:
        torch.set_num_threads(1)  # for this thread alone: a second team would fight the consumer's for its cores
        try:
            for item in source:
                if not self._put(item):
                    return
            self._put(_END)
        except BaseException as error:  # carried over to the consumer, whatever it is
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[T]:
        try:
            while True:
                item = self._queue.get()
                if item is _END:
                    return
                if isinstance(item, BaseException):
                    raise item
                yield item  # type: ignore[misc]
        finally:
            self._stop.set()
            self._thread.join()
