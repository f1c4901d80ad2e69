"""How good the outputs of a network on its arrays are: against labels, and against the network computed exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cimc.dataset import Samples
from cimc.errors import CimcError
from cimc.shares import LOWER_IS_BETTER, is_share
from runtime.network.network import Network
from runtime.network.stepwise import Arrays
from runtime.system.measures import (
    Measure,
    Sums,
    agreement_of,
    agreement_sums,
    choose_measure,
    measure_of,
    merge,
)

# What stands for an output without labels, the first that it has.
AGREEMENTS = ("argmax_agreement", "fidelity")


@dataclass(frozen=True)
class Measured:
    """An output that is measured against labels. softmax: whether it is probabilities."""

    output: str
    name: str
    measure: Measure
    softmax: bool


@dataclass
class Quality:
    """Sums over batches. labelled: the outputs with labels; sums by output, of measures and of agreement."""

    labelled: tuple[Measured, ...]
    measured: dict[str, Sums] = field(default_factory=dict)
    agreed: dict[str, Sums] = field(default_factory=dict)

    def add(self, outputs: Arrays, samples: Samples, reference: Arrays | None = None) -> None:
        """Count a batch: outputs by name, the samples with their labels, and what the exact network gives.

        An output without sizes, of a network whose batch is fixed, is one sample.
        """
        outputs = {name: np.atleast_1d(values) for name, values in outputs.items()}
        for one in self.labelled:
            labels, values = samples.labels_of(one.output), outputs[one.output]
            if labels is None:
                continue
            if one.softmax and one.name == "perplexity":
                values = np.log(np.maximum(values, 1e-30))
            self.measured[one.output] = merge(self.measured.get(one.output), one.measure.add(values, labels))
        for name, given in (reference or {}).items():
            wanted = np.atleast_1d(given)
            if wanted.dtype == np.float32 and wanted.size:
                self.agreed[name] = merge(self.agreed.get(name), agreement_sums(outputs[name], wanted))

    def figures(self) -> dict[str, dict[str, float]]:
        """By output, the figures of its measure, the main one first."""
        return {one.output: one.measure.finish(self.measured[one.output]) for one in self.labelled}

    def agreement(self) -> dict[str, dict[str, float]]:
        """By output, how it agrees with the exact network's (`agreement_of`)."""
        return {name: agreement_of(sums) for name, sums in self.agreed.items()}

    def main(self) -> tuple[str, float]:
        """The name and the value of the one figure that stands for all: of the first output."""
        found: Mapping[str, float] = next(iter((self.figures() or self.agreement()).values()), {})
        if not self.labelled:
            found = {name: found[name] for name in AGREEMENTS if name in found}
        if not found:
            raise CimcError("the network has no output of floats that could be measured")
        return next(iter(found.items()))


def new_quality(network: Network, samples: Samples, metric: str | None = None, *, name: str = "the data") -> Quality:
    """Nothing counted yet, for samples with labels or without.

    Args:
        network: its outputs have the labels' names, or its only one of floats is meant.
        samples: those to be measured.
        metric: the measure of all labelled outputs; None: the usual one of each.
        name: of the data, in errors.

    Raises:
        CimcError: labels and outputs do not go together, or a measure is wanted and labels are not there.
    """
    if samples.labels is None:
        if metric is not None:
            raise CimcError(f"--metric {metric} needs labels, and {name} has none; without it agreement is measured")
        return Quality(())
    named = samples.labels if isinstance(samples.labels, Mapping) else {_scores(network, name): samples.labels}
    if unknown := sorted(named.keys() - set(network.outputs)):
        raise CimcError(f"{name} has labels for {unknown[0]}, but the network's outputs are {_listed(network)}")
    labelled = []
    for output, labels in named.items():
        sizes = network.shapes.get(output, ())
        shape = [len(samples), *(size if isinstance(size, int) else labels.shape[1] for size in sizes[1:])]
        chosen = metric or choose_measure(shape, labels)
        measure = measure_of(chosen)
        last = next((node for node in network.protos if output in node.output), None)
        labelled.append(Measured(output, chosen, measure, last is not None and last.op_type == "Softmax"))
        if measure.classes and labels.size and chosen != "edit" and int(labels.max()) >= max(shape[1:], default=0):
            raise CimcError(
                f"{name} has labels of {int(labels.max()) + 1} classes, but the network's output {output} is "
                f"{'x'.join(map(str, shape[1:]))}; choose data with fewer classes"
            )
    return Quality(tuple(labelled))


def _scores(network: Network, name: str) -> str:
    """The output that labels without a name belong to."""
    if len(network.logits) != 1:
        raise CimcError(
            f"{name} has labels without a name, and the network's outputs are {_listed(network)}: name them labels/NAME"
        )
    return next(iter(network.logits))


def _listed(network: Network) -> str:
    return ", ".join(network.outputs)


def better(name: str, value: float, than: float) -> float:
    """A figure over its baseline, which is above 0, such that 1 is as good and less is worse."""
    return (than / max(value, 1e-12)) if name in LOWER_IS_BETTER else value / than


def require_baseline(name: str, baseline: float, *, given: bool = True) -> None:
    """Raises CimcError where a figure of that name cannot be normalised by the baseline; given: by the user."""
    if not baseline > 0:
        raise CimcError(
            f"the {name.replace('_', ' ')} of the package's weights in float32 is {baseline:g} on these samples, and "
            "nothing is normalised by that; say by what with --baseline"
        )
    if given and baseline > 1 and is_share(name):
        raise CimcError(f"--baseline is {baseline:g}, and {name.replace('_', ' ')} is at most 1; give one up to 1")
