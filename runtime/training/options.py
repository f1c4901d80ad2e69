"""Options of a training run."""

from dataclasses import dataclass, field, fields
from typing import Any

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.options import (
    Augment,
    Backward,
    Gradient,
    Keep,
    Loss,
    Optimizer,
    RateSchedule,
    Residual,
    Sync,
    Write,
    check_choice,
    check_number,
    check_seed,
    check_whole,
    listed,
)
from cimc.write_budget import parse_budget
from runtime.training.compute import ARRAYS, Compute
from runtime.training.frank_wolfe import FrankWolfe
from runtime.training.policies import find_policy, make_rule
from runtime.training.policies.policy import UpdateRule
from runtime.training.ways import WAYS, compute_by

DEFAULT_LR = 0.005
FLOAT_METHOD = "float"
# Beyond these nothing is computed in a lifetime, or nothing fits a memory.
MOST_STEPS = 10**9
MOST_BATCH = 2**20
MOST_EPOCH = 2**28  # samples: their order is drawn at once
MOST_TANGENTS = 2**16
MOST_RATE = 1e6
COMMON = ("threshold", "residual", "write", "sync")  # options that several policies have


@dataclass(frozen=True)
class Policy:
    """How weights are changed, as the commands and files state it.

    method: name of an update policy (`runtime.training.policies`), or of a way to compute that touches no device
    (`runtime.training.ways`). threshold, residual, write, sync: options of the policy, of those that it has. settings:
    further options, by name. backward: input gradients from the digital copy or from a transposed read of the arrays.
    """

    method: str = "mixed-precision"
    threshold: float | None = None
    residual: Residual = Residual.keep
    write: Write = Write.verify
    backward: Backward = Backward.digital
    sync: Sync = Sync.auto
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        """Names of choices become the choices. Raises CimcError for a value that is none."""
        further = dict(self.settings)
        for name in set(self._common()) & further.keys():
            # One place for each: what asks for `sync` must not miss one that --set gave.
            value = further.pop(name)
            object.__setattr__(self, name, _number(value) if name == "threshold" else value)
        object.__setattr__(self, "settings", tuple(further.items()))
        choices = {"residual": Residual, "write": Write, "backward": Backward, "sync": Sync}
        for name, kind in choices.items():
            object.__setattr__(self, name, check_choice(kind, name, getattr(self, name)))
        if self.threshold is not None:
            object.__setattr__(self, "threshold", check_number("--threshold", self.threshold, least=0))
        self.rule, self.compute  # noqa: B018 - the policy and its options are checked where they are made

    @property
    def compute(self) -> Compute:
        """The way in which training computes."""
        return compute_by(self.method, dict(self.settings)) if self.method in WAYS else ARRAYS

    @property
    def rule(self) -> UpdateRule:
        """The update policy with its options; of a way that asks none, the default one."""
        if self.method in WAYS:
            if self.settings and self.method == FLOAT_METHOD:
                raise CimcError("--set gives options of an update policy, and --update float has none; leave one out")
            return make_rule("mixed-precision")
        common = {option: getattr(self, option) for option in self._common()}
        return make_rule(self.method, **{**common, **dict(self.settings)})

    def _common(self) -> list[str]:
        """Those of the `COMMON` options that the policy has."""
        if self.method in WAYS:
            return []
        known = {option.name for option in fields(find_policy(self.method, also=WAYS).options)}
        return [option for option in COMMON if option in known]

    @property
    def without_effect(self) -> list[str]:
        """Those of the `COMMON` options that are not left at their defaults and that the policy does not have."""
        defaults = {option.name: option.default for option in fields(self)}
        return [name for name in COMMON if getattr(self, name) != defaults[name] and name not in self._common()]

    def check(self, chip: Chip) -> None:
        """Raises CimcError for options that do not fit together or the chip."""
        if not self.compute.on_arrays:
            if self.compute.converts and self.backward is Backward.analog:
                raise CimcError(f"--backward analog reads devices, and --update {self.method} has none; leave it out")
            return
        rule = self.rule
        rule.policy.check(rule.options, chip)
        if self.sync == "none" and self.backward == "digital":
            raise CimcError("--sync none leaves no digital copy for the backward pass; add --backward analog")


def _number(value: Any) -> Any:
    """A text of a number as the number; all else as it is, for the check that names it."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@dataclass(frozen=True)
class TrainingOptions:
    """Options of a run.

    lr: of digital parameters, and of a layer whose weight range is `runtime.training.compute.REFERENCE_SDS` sd of He's
    initial weights; a layer with another range takes as much larger or smaller steps, the same part of its threshold in
    whatever unit and distribution the file's weights were drawn. With method float that of all parameters, as in plain
    training.
    schedule: constant; cosine from lr to 0 over the run; linear likewise; step: a tenth at a half and at three quarters
    of it; exponential: to a hundredth; plateau: halved after five epochs without a lower loss. warmup: steps in which
    the rate rises from 0, or "3 epochs". optimizer: `cimc.options.Optimizer`. weight_decay: of crossbar weights; with
    adamw of all parameters.
    loss: of every trained output; auto: cross-entropy for classes, binary for truth values, mse for other targets, and
    without labels distillation from the original network. label_smoothing: of cross-entropy, from 0 to below 1.
    augment: what is drawn anew for every image of a batch.
    validation: share of the training samples that is kept apart; plateau and patience look at its loss. patience:
    epochs without a lower one after which the run ends. keep: the state it ends with. freeze: patterns of layers and
    digital parameters that stay as they are. reestimate_statistics: of batch normalisation, after every epoch.
    keep_statistics: last epochs in which it normalises by the running statistics, as a chip does, and leaves them.
    gradient: backward, or forward only, along so many random tangents a step (`runtime.training.gradients`).
    frank_wolfe: options of that optimiser, which moves crossbar weights only, by the rate `lr` without weight decay,
    while Adam moves the digital parameters.
    write_budget: what may be written in a step (`cimc.write_budget.parse_budget`); None: all that is due. write_every:
    writes are made in each n-th step. micro_batch: samples of a batch that are computed at once, which bounds the
    memory of a step; None: all. Loss and gradients are the mean of those of the parts. Each part has its own noise, and
    moves the statistics of batch normalisation.
    """

    policy: Policy = field(default_factory=Policy)
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    lr: float = DEFAULT_LR
    schedule: RateSchedule = RateSchedule.cosine
    weight_decay: float = 0.01
    seed: int = 0
    loss: Loss = Loss.auto
    optimizer: Optimizer = Optimizer.adam
    warmup: int | str = 0
    label_smoothing: float = 0.0
    augment: tuple[Augment, ...] = ()
    validation: float = 0.0
    patience: int | None = None
    keep: Keep = Keep.last
    freeze: tuple[str, ...] = ()
    reestimate_statistics: bool = False
    keep_statistics: int = 0
    gradient: Gradient = Gradient.backward
    tangents: int = 1
    frank_wolfe: FrankWolfe = field(default_factory=FrankWolfe)
    write_budget: str | None = None
    write_every: int = 1
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        """The name of a rate schedule becomes it. Raises CimcError for a value that is none."""
        if not isinstance(self.policy, Policy):
            raise CimcError(f"policy is {self.policy!r}; give a Policy, such as Policy(method='naive')")
        checked: dict[str, Any] = {
            "schedule": check_choice(RateSchedule, "schedule", self.schedule),
            "loss": check_choice(Loss, "loss", self.loss),
            "gradient": check_choice(Gradient, "gradient", self.gradient),
            "optimizer": check_choice(Optimizer, "optimizer", self.optimizer),
            "keep": check_choice(Keep, "keep", self.keep),
            "augment": tuple(check_choice(Augment, "augment", name) for name in listed("augment", self.augment)),
            "freeze": listed("freeze", self.freeze),
            "warmup": _check_warmup(self.warmup),
            "label_smoothing": check_number("label_smoothing", self.label_smoothing, least=0, most=0.99),
            "validation": check_number("validation", self.validation, least=0, most=0.99),
        }
        if self.patience is not None:
            checked["patience"] = check_whole("patience", self.patience, 1, MOST_STEPS)
            self._require_validation("--patience")
        if checked["keep"] is Keep.best:
            self._require_validation("--keep best")
        if self.write_budget is not None:
            parse_budget(self.write_budget)
            checked["write_budget"] = str(self.write_budget)
        if checked["optimizer"] is Optimizer.frank_wolfe and self.policy.compute.on_arrays and self.policy.rule.tiles:
            raise CimcError(
                f"--update {self.policy.method} pulses by the gradient and takes no steps of --optimizer frank-wolfe; "
                "leave one out"
            )
        if (self.write_budget is not None or self.write_every != 1) and not self.policy.compute.on_arrays:
            raise CimcError(
                f"--update {self.policy.method} writes no devices; leave out --write-budget and --write-every"
            )
        if self.steps_per_epoch is not None:
            checked["steps_per_epoch"] = check_whole("steps_per_epoch", self.steps_per_epoch, 1, MOST_STEPS)
        checked |= {
            field: check_whole(field, getattr(self, field), 1, most)
            for field, most in (
                ("epochs", MOST_STEPS),
                ("batch_size", MOST_BATCH),
                ("tangents", MOST_TANGENTS),
                ("write_every", MOST_STEPS),
            )
        }
        checked["keep_statistics"] = check_whole("keep_statistics", self.keep_statistics, 0, checked["epochs"])
        if checked["keep_statistics"] and self.patience is not None:
            raise CimcError("--patience may end a run before the last epochs of --keep-statistics; leave one out")
        if self.micro_batch is not None:
            checked["micro_batch"] = check_whole("micro_batch", self.micro_batch, 1, MOST_BATCH)
            if checked["batch_size"] % checked["micro_batch"]:
                raise CimcError(
                    f"a batch of {self.batch_size} is no multiple of a micro-batch of {self.micro_batch}; give one "
                    "that divides it"
                )
        if (checked.get("steps_per_epoch") or 1) * checked["batch_size"] > MOST_EPOCH:
            raise CimcError(
                f"an epoch of {self.steps_per_epoch} steps of {self.batch_size} samples is more than {MOST_EPOCH} "
                f"samples; give fewer steps and more --epochs"
            )
        checked |= {
            field: check_number(field, getattr(self, field), least=0, most=MOST_RATE)
            for field in ("lr", "weight_decay")
        }
        checked["seed"] = check_seed(self.seed)
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def _require_validation(self, option: str) -> None:
        if not self.validation:
            raise CimcError(f"{option} looks at validation samples; add --validation 0.1")

    @property
    def parts(self) -> int:
        """Parts of a batch that are computed one after the other."""
        return self.batch_size // (self.micro_batch or self.batch_size)

    def steps(self, images: int) -> int:
        """Steps of one epoch."""
        return self.steps_per_epoch or max(images // self.batch_size, 1)

    def warmup_steps(self, per_epoch: int) -> int:
        """Steps of the warm-up, for so many steps an epoch."""
        if isinstance(self.warmup, int):
            return self.warmup
        return round(float(self.warmup.split()[0]) * per_epoch)


def _check_warmup(value: Any) -> int | str:
    """A number of steps, or of epochs as "3 epochs". Raises CimcError for anything else."""
    words = value.replace("epoch", " epoch").split() if isinstance(value, str) else []
    if len(words) == 2 and words[1] in ("epoch", "epochs"):
        return f"{check_number('warmup', _number(words[0]), least=0):g} epochs"
    steps = int(value) if isinstance(value, str) and value.isdecimal() else value
    if isinstance(steps, str):
        raise CimcError(f"warmup is {value!r}; give a number of steps such as 500, or of epochs such as '3 epochs'")
    return check_whole("warmup", steps, 0, MOST_STEPS)
