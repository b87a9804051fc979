from collections.abc import Sequence
from typing import Self

from appliance.sim.tape import Tape

class Renderer:
    def __new__(
        cls,
        tape: Tape,
        streams: Sequence[tuple[int, bytes, bytes]],
        *,
        combined: bool,
        microseconds: bool = False,
        whole: bool = False,
        order_ids: bool = False,
        extra_key: bool = False,
    ) -> Self: ...
    @property
    def frames(self) -> int: ...
    @property
    def held(self) -> int: ...
    def render(self) -> bytes: ...
    def late(self, now_us: int) -> bytes: ...
