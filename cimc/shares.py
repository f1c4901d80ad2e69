"""Which figures are shares, and how a report writes them: in percent."""

SHARES = (
    "accuracy",
    "agreement",
    "yield",
    "relative_error",
    "f1_micro",
    "exact_match",
    "exact_sequences",
    "miou",
)


def is_share(name: str) -> bool:
    """Whether a figure of that name is a share of 1, such as `accuracy` or `test accuracy`."""
    return any(share in name.replace(" ", "_") for share in SHARES)


def percent(share: float) -> str:
    """A share in percent, with four digits."""
    return f"{100 * share:.4g} %"


def figure_short(name: str, value: float) -> str:
    """A figure with four digits; shares in percent."""
    return percent(value) if is_share(name) else f"{value:.4g}"
