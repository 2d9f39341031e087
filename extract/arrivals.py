"""What workers of other machines have written, seen from here: a network file system may show a folder as it was a
minute ago, so a video's receipt is held until its shard is there, while others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from time import monotonic, sleep

from affuse.errors import AffuseError
from affuse.extract.summary import Receipt
from affuse.features.store import FeatureStore

PATIENCE = 90.0  # s in which a shard must be seen; folders are remembered for up to 60
PAUSE, LONGEST = 0.05, 10.0  # s between the first two looks, and between later ones; each is twice the one before


@dataclass(order=True)
class Held:
    """A receipt, when to look for its shard next, the pause after that, and when to give it up."""

    look: float
    receipt: Receipt = field(compare=False)
    pause: float = field(compare=False)
    until: float = field(compare=False)


def appears(there: Callable[[], bool]) -> bool:
    """Whether it is there, or comes to be in good time."""
    pause, until = PAUSE, monotonic() + PATIENCE
    while not (found := there()) and monotonic() < until:
        sleep(pause)
        pause = min(2 * pause, LONGEST)
    return found


class Arrivals:
    """Receipts, each held until what it tells of is seen in the store."""

    def __init__(self, store: FeatureStore):
        self.store = store
        self.held: list[Held] = []
        self.seen = 0

    def take(self, receipt: Receipt) -> None:
        now = monotonic()
        heappush(self.held, Held(now, receipt, PAUSE, now + PATIENCE))

    def due(self, wait: bool = False) -> Iterator[Receipt]:
        """Those whose shards are there by now, and those given up, which say so as failures; with `wait`, all.

        Raises AffuseError where several wait and none was ever seen: then it is another disk.
        """
        while self.held and (wait or self.held[0].look <= monotonic()):
            held = heappop(self.held)
            sleep(max(0.0, held.look - monotonic()))
            if held.receipt.statuses is None or self.store.look(held.receipt.id):
                self.seen += 1
                yield held.receipt
            elif (now := monotonic()) < held.until:
                again = min(now + held.pause, held.until)
                heappush(self.held, Held(again, held.receipt, min(2 * held.pause, LONGEST), held.until))
            else:
                yield self._missed(held.receipt)

    def _missed(self, receipt: Receipt) -> Receipt:
        why = (
            f"was extracted, but {PATIENCE:.0f} s later it is not in {self.store.path.absolute()} as this machine sees "
            "it: all machines must see the store under the same path, on the same disk."
        )
        if self.held and not self.seen:
            raise AffuseError(f"{receipt.id} {why}")
        return replace(receipt, failure=f"it {why} Run the same command again: what has turned up is not made again.")
