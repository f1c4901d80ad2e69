"""The window of a convolution."""

import pytest

from cimc.window import Window, output_sizes


def test_a_window_counts_the_places_at_which_it_fits() -> None:
    window = Window(kernel=(3, 2), strides=(2, 1), pads=(1, 0, 2, 1), dilations=(1, 2))
    # Rows: -1..7 hold starts -1, 1, 3, 5; columns: 0..4 hold starts 0, 1, 2 of a window three wide.
    assert output_sizes((6, 4), window) == (4, 3)


@pytest.mark.parametrize(
    ("strides", "pads", "dilations"), [((1,), (0,) * 4, (1, 1)), ((1, 1), (0, 0), (1, 1)), ((1, 1), (0,) * 4, (1,) * 3)]
)
def test_a_window_whose_sizes_disagree_about_its_axes_is_refused(
    strides: tuple[int, ...], pads: tuple[int, ...], dilations: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="axes"):
        Window((3, 3), strides, pads, dilations)
