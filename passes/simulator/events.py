"""Events in time, and servers that serve one request after the other: the clockwork of the simulator."""

import heapq
from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

Action = Callable[[], None]


class Clock:
    """Runs actions at their times, those of one moment in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Action]] = []
        self._count = 0

    def at(self, time: float, action: Action) -> None:
        """Run `action` at `time` (ns), not before now."""
        self._count += 1
        heapq.heappush(self._queue, (max(time, self.now), self._count, action))

    def run(self) -> None:
        """Until nothing is left to do."""
        while self._queue:
            self.now, _, action = heapq.heappop(self._queue)
            action()


class _Request(NamedTuple):
    image: int
    number: int
    since: float
    service_ns: float
    user: str
    begun: Action


class Server:
    """A resource that serves one request at a time: older images first, then in the order of asking.

    busy_ns: all services together. waits: ns that one layer waited while another one was served, by (layer, other).
    """

    def __init__(self, clock: Clock, kind: str, where: str) -> None:
        self.kind, self.where = kind, where
        self.busy_ns = 0.0
        self.waits: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._clock = clock
        self._queue: list[_Request] = []
        self._free_at = 0.0
        self._holder = ""
        self._count = 0

    def request(self, image: int, service_ns: float, user: str, begun: Action) -> None:
        """Ask for `service_ns` of the server for the layer `user`; `begun` runs when the service begins."""
        if not self._queue and self._clock.now >= self._free_at:
            self._begin(service_ns, user, begun)
            return
        self._count += 1
        heapq.heappush(self._queue, _Request(image, self._count, self._clock.now, service_ns, user, begun))
        if len(self._queue) == 1:
            self._clock.at(self._free_at, self._next)

    def _begin(self, service_ns: float, user: str, begun: Action) -> None:
        self._holder = user
        self.busy_ns += service_ns
        self._free_at = self._clock.now + service_ns
        begun()

    def _next(self) -> None:
        request = heapq.heappop(self._queue)
        if self._holder != request.user:
            self.waits[request.user, self._holder] += self._clock.now - request.since
        self._begin(request.service_ns, request.user, request.begun)
        if self._queue:
            self._clock.at(self._free_at, self._next)


def join_services(clock: Clock, count: int, end: float, done: Action) -> Callable[[float], None]:
    """What each of `count` requests calls with its service when it begins: `done` runs at the end of all, not before
    `end`; at `end` if there are none.
    """
    waiting = count

    def begun(service: float) -> None:
        nonlocal waiting, end
        waiting -= 1
        end = max(end, clock.now + service)
        if not waiting:
            clock.at(end, done)

    if not waiting:
        clock.at(end, done)
    return begun
