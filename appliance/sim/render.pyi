from collections.abc import Sequence

from appliance.sim.tape import Tape

class Renderer:
    def __init__(
        self,
        tape: Tape,
        streams: Sequence[tuple[int, bytes, bytes]],
        *,
        combined: bool,
        microseconds: bool = False,
        whole: bool = False,
        order_ids: bool = False,
        extra_key: bool = False,
    ) -> None: ...
    @property
    def frames(self) -> int: ...
    def render(self) -> bytes: ...
