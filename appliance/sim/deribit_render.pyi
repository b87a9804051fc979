from collections.abc import Mapping, Sequence
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
        combos: Mapping[int, Sequence[int]] | None = None,
    ) -> Self: ...
    @property
    def frames(self) -> int: ...
    @property
    def held(self) -> int: ...
    def render(self) -> bytes: ...
    def row(self, symbol: int, trade_id: int, trade_us: int) -> bytes: ...
    def late(self, now_us: int) -> bytes: ...
