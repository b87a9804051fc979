from collections.abc import Sequence
from typing import Self

from appliance.sim.tape import Tape

class NotificationRenderer:
    def __new__(
        cls,
        tape: Tape,
        instruments: Sequence[tuple[bytes, bytes, bool]],
        channels: Sequence[tuple[bytes, Sequence[int]]],
        *,
        generation: int = 2026,
        batch_us: int = 0,
        whole: bool = False,
    ) -> Self: ...
    @property
    def frames(self) -> int: ...
    @property
    def held(self) -> int: ...
    def render(self) -> bytes: ...
    def late(self, now_us: int) -> bytes: ...
