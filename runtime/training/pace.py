"""How many steps run in one call: fast ones many, without Python between; slow ones few, so that progress shows."""

from typing import NamedTuple

import jax

STEPS_PER_CALL = 20  # at most
CALL_S = 2.0


class Pace(NamedTuple):
    """steps: of the next call. waits: whether calls are waited for and timed; not where `STEPS_PER_CALL` are fast."""

    steps: int = 1
    waits: bool = True

    def after(self, steps: int, seconds: float) -> "Pace":
        """After a call of so many steps; the first, which is compiled, tells too little and is followed by one more."""
        fit = min(max(int(CALL_S * steps / max(seconds, 1e-9)), 1), STEPS_PER_CALL)
        return Pace(fit, fit < STEPS_PER_CALL)


def first_pace() -> Pace:
    """One step; of several processes, which must all run the same, as many as they ever do."""
    return Pace() if jax.process_count() == 1 else Pace(STEPS_PER_CALL, waits=False)
