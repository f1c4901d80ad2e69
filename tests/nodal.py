"""The judge of IR drop: nodal analysis of an array with its wires, by sparse linear algebra in float64."""

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg

from cimc.chip_wires import Wires

Doubles = npt.NDArray[np.float64]


def column_currents(cells_uS: Doubles, wires: Wires, voltages: Doubles) -> Doubles:
    """What flows out of the bit lines [columns, cases] in uA, of word lines driven with [rows, cases] in V.

    Kirchhoff's law at both nodes of every cell; wires of 0 ohm are taken as of a millionth.
    """
    rows, columns = cells_uS.shape
    word = np.arange(rows * columns).reshape(rows, columns)
    bit = word + rows * columns
    of_word, of_bit = (1e6 / max(ohm, 1e-6) for ohm in (wires.word_line_ohm, wires.bit_line_ohm))  # uS
    parts: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Doubles]] = []

    def join(a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], conductance: npt.ArrayLike) -> None:
        g = np.broadcast_to(np.asarray(conductance, np.float64), a.shape).ravel()
        parts.extend((x.ravel(), y.ravel(), sign * g) for x, y, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)))

    join(word, bit, cells_uS)
    join(word[:, :-1], word[:, 1:], of_word)
    join(bit[:-1], bit[1:], of_bit)
    driven = [word[:, 0]] + [word[:, -1]] * (wires.driven_at == "both")
    sensed = [bit[-1]] * (wires.sensed_at != "first") + [bit[0]] * (wires.sensed_at != "last")
    parts.extend(
        (nodes, nodes, np.full(nodes.shape, g)) for ends, g in ((driven, of_word), (sensed, of_bit)) for nodes in ends
    )
    at, to, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    network = scipy.sparse.csc_matrix((values, (at, to)), shape=(2 * word.size,) * 2)
    into = np.zeros((2 * word.size, voltages.shape[1]))
    for nodes in driven:
        into[nodes] += of_word * voltages
    options = {"SymmetricMode": True}
    factors = scipy.sparse.linalg.splu(network, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
    found = factors.solve(into)
    return of_bit * sum(found[nodes] for nodes in sensed)
