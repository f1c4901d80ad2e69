"""Why a crossbar layer errs: its read with each effect switched off in turn, and with each alone, on some of its MVMs.

With E(on) the power of the difference to the exact output where the effects `on` are on, E() what is left without any
(rounding of float32, and what corrects a loss that is not there), each cause has

    alone    E({cause}) - E()
    removed  E(all) - E(all but the cause)
    share    (alone + removed) / 2 / E(all)

Errors of two causes that add up have the power of each and twice their product; the share gives each cause half of
that. So the shares add up to 1 where the errors add up. Where effects act through each other the rest says by how much
they do not: the idle current has no error of its own, it takes of the ADC's range, and with ADC clipping it has half.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats, Held
from runtime.system.read_effects import Cause, clipped_share, copy_layer, present_causes, read

REMEDIES = {
    Cause.input_clipping: "wider input ranges: export on more samples (export --data)",
    Cause.input_rounding: "a chip with more input bits, or the layer left digital (compile --digital)",
    Cause.weights: "a chip with more levels, or the layer left digital (compile --digital)",
    Cause.programming: "rows held several times (compile --fill-rows), or correction on samples (export --correct)",
    Cause.ir_drop: "correction on samples (export --correct), or training on the arrays with their wires",
    Cause.read_noise: "rows held several times (compile --fill-rows), or the layer left digital (compile --digital)",
    Cause.idle_current: "fewer rows driven at once (compile --rows-per-read)",
    Cause.adc_noise: "rows held several times (compile --fill-rows), or the layer left digital (compile --digital)",
    Cause.adc_clipping: "fewer rows driven at once (compile --rows-per-read)",
    Cause.adc_step: "rows held several times (compile --fill-rows), or a chip with more ADC bits",
}


@dataclass(frozen=True)
class Losses:
    """Powers of a layer's error, summed over the MVMs and columns that were looked at.

    signal: of the exact output. error: with all effects, and left: with none. alone, without: by cause, with it alone
    and with all but it; causes that the chip does not have are left out. clipped_codes: share of the conversions of
    these columns that end at the ADC's largest code.
    """

    signal: float
    error: float
    left: float
    alone: Mapping[Cause, float]
    without: Mapping[Cause, float]
    clipped_codes: float

    @property
    def shares(self) -> dict[Cause, float]:
        """Of the error, by cause, as this file defines it; may be below 0 where causes cancel each other."""
        if not self.error:
            return dict.fromkeys(self.alone, 0.0)
        return {
            cause: (alone - self.left + self.error - self.without[cause]) / 2 / self.error
            for cause, alone in self.alone.items()
        }

    @property
    def main_cause(self) -> Cause | None:
        """The one without which the error is least; None where nothing is lost.

        Of ADC clipping the idle current is the cause where it makes more than half of it.
        """
        removed = {cause: self.error - power for cause, power in self.without.items()}
        main = max(removed, key=lambda cause: removed[cause], default=None)
        if main is None or removed[main] <= 0:
            return None
        idle = main is Cause.adc_clipping and removed.get(Cause.idle_current, 0.0) > removed[main] / 2
        return Cause.idle_current if idle else main

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON values: by cause its share, the SNR with it alone and the one without it; the main cause, its remedy.

        SNR in dB, None where nothing is lost. rest: the share that the causes do not add up to.
        """
        shares, main = self.shares, self.main_cause
        return {
            "causes": {
                cause.value: {
                    "share": shares[cause],
                    "alone_snr_db": decibels(self.signal, alone),
                    "snr_without_db": decibels(self.signal, self.without[cause]),
                }
                for cause, alone in self.alone.items()
            },
            "rest": 1 - sum(shares.values()) if self.error else 0.0,
            "main_cause": main and main.value,
            "remedy": main and REMEDIES[main],
        }


def decibels(signal: float, error: float) -> float | None:
    """The SNR in dB; None where nothing differs."""
    return 10 * math.log10(signal / error) if signal > 0 and error > 0 else None


def loss_causes(
    layer: Crossbar,
    x: Floats,
    held: Held,
    *,
    targets: Floats,
    weight: Floats,
    exact: tuple[Floats, Floats | None],
    seed: int | None,
) -> Losses:
    """The losses of a layer on given inputs.

    Args:
        layer: static description.
        x: inputs of its MVMs [rows, MVMs], of a grouped convolution the rows of all groups (`sample_vectors`).
        held: what the chip and the digital side hold.
        targets: conductances [devices, rows, columns] in uS as they were to be programmed.
        weight: the weights [rows, columns] that these stand for, without the gain and times the input factors.
        exact: weights and bias of the exact layer, gains included.
        seed: of the noise; None: none.
    """
    copy = copy_layer(layer, x, held, targets=targets, weight=weight, exact=exact)
    present = present_causes(copy, noise=seed is not None)

    def power(on: Collection[Cause]) -> float:
        random = np.random.default_rng(seed)  # the same noise in each read
        return _power(read(copy, frozenset(on), random) - copy.exact)

    left = power(())
    return Losses(
        signal=_power(copy.exact),
        error=power(present),
        left=left,
        alone={cause: left if cause is Cause.idle_current else power([cause]) for cause in present},
        without={cause: power([other for other in present if other is not cause]) for cause in present},
        clipped_codes=clipped_share(copy, frozenset(present), np.random.default_rng(seed)),
    )


def _power(array: npt.NDArray[np.floating]) -> float:
    return float(np.square(array, dtype=np.float64).sum())
