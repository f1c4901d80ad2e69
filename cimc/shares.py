"""Which figures are shares of 1 and which are errors, and how reports write figures: shares in percent."""

SHARES = ("accuracy", "agreement", "yield", "relative_error", "f1_micro", "exact_match", "exact_sequences", "miou")
LOWER_IS_BETTER = ("mse", "mae", "perplexity", "edit_distance")


def is_share(name: str) -> bool:
    """Whether a figure of that name is a share of 1, such as `accuracy` or `test accuracy`."""
    return any(share in name.replace(" ", "_") for share in SHARES)


def percent(share: float) -> str:
    """A share in percent, with as many of four digits as it takes."""
    return f"{100 * share:.4g} %"


def measure_text(name: str, value: float) -> str:
    """A figure as tables have it: shares in percent with two places, others with four digits."""
    return f"{100 * value:.2f} %" if is_share(name) else f"{value:.4g}"


def mark_text(name: str, value: float) -> str:
    """A figure as the mark of an axis, without zeros at its end."""
    return percent(value) if is_share(name) else f"{value:.4g}"
