"""IR drop: what the resistance of word lines and bit lines leaves of a column's current.

Cells are linear, so that the columns of arrays give V^T G' for any inputs V, with conductances G' that depend on the
arrays alone: found once a programming, they cost a read nothing.

    static      G' = G (Vw - Vb) / V      voltages of the two ends of each cell, all word lines driven alike with V:
                                          exact for such inputs, near it for others
    exact       G' by its rows' currents  one bit line driven at its sensed end, all other ends at 0: the same network
                                          read backwards; as many solutions as bit lines

A word line, with the bit lines at given voltages, is a ladder that two passes solve, and so is a bit line; the two are
solved in turn (`_differences`). All terms of a pass are sums and quotients of positive numbers, so that float32 loses
nothing; a wire of 0 ohm needs no case of its own.

    per-input   y' = y - c(a) sum_r G u_r (1 - (r / n)^2)      in each read, as aihwkit has it, of bit lines alone; a
                a  = n R y / top                               cell loses while it is driven (elsewhere at 0 V it takes
                c(a) = a (a (0.05 a - 0.2) + 0.5)              current back); n rows, r from the end that is not sensed
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip_wires import Wires
from runtime.crossbar.currents import currents

OHM_uS = 1e-6  # 1 ohm times 1 uS
TOLERANCE = 1e-4  # of the driven voltage, by a bound; what is left is a hundredth of it


def effective_conductances(cells: Array, wires: Wires, *, most_uS: float) -> Array:
    """What the cells of arrays seem to hold [arrays, rows, columns] in uS, from what they hold; 0: no cell is there.

    most_uS: the largest conductance of a cell; it sets how often the lines are solved in turn.
    """
    if wires.sensed_at == "first":
        turned = wires.model_copy(update={"sensed_at": "last"})
        return effective_conductances(cells[:, ::-1], turned, most_uS=most_uS)[:, ::-1]
    if wires.ir_drop == "static":
        return cells * _differences(cells, wires, most_uS, word_end=jnp.float32(1), bit_end=jnp.float32(0))

    def seen_from(driven: Array) -> Array:
        """[arrays, rows]: what flows out of the word lines where the bit lines' ends are at such voltages."""
        apart = _differences(cells, wires, most_uS, word_end=jnp.float32(0), bit_end=driven)
        return -jnp.sum(cells * apart, axis=2)

    return jax.lax.map(seen_from, jnp.eye(cells.shape[2], dtype=jnp.float32)).transpose(1, 2, 0)


def less_ir_drop(drawn: Array, vectors: Array, conductance: Array, wires: Wires, *, top: float) -> Array:
    """Currents less what is lost on the bit lines, by the input-dependent rule; one product more.

    Args:
        drawn: of `currents`.
        vectors, conductance: its arguments; no input is negative.
        wires: of the array.
        top: the input that is driven with the whole read voltage.
    """
    rows = vectors.shape[1]
    far = 1 - (jnp.arange(rows, dtype=jnp.float32) / rows) ** 2
    weighted = currents(vectors * far[:, None], conductance)
    a = drawn * jnp.float32(rows * wires.bit_line_ohm * OHM_uS / top)
    return drawn - a * (a * (0.05 * a - 0.2) + 0.5) * weighted


def _differences(cells: Array, wires: Wires, most_uS: float, *, word_end: Array, bit_end: Array) -> Array:
    """Voltage between the two ends of each cell [arrays, rows, columns], bit lines sensed at the last row (or both).

    word_end: of the word lines' driven ends. bit_end: of the bit lines' sensed ends, one or [columns].
    """
    _, rows, columns = cells.shape
    # The lines along the first axis, from the end that is held: of word lines the first column, of bit lines the last
    # row.
    word_lines = _Ladder(cells.transpose(2, 0, 1), wires.word_line_ohm, word_end, both=wires.driven_at == "both")
    bit_lines = _Ladder(cells.transpose(1, 0, 2)[::-1], wires.bit_line_ohm, bit_end, both=wires.sensed_at == "both")

    def swapped(voltages: Array) -> Array:
        """[columns, arrays, rows] from [rows from the last, arrays, columns]."""
        return voltages[::-1].transpose(2, 1, 0)

    def step(carried: tuple[Array, Array], factors: Array) -> tuple[tuple[Array, Array], None]:
        v_bit, change = carried
        v_word = word_lines.voltages(v_bit)
        found = swapped(bit_lines.voltages(v_word.transpose(2, 1, 0)[::-1]))
        change = found - v_bit + factors[1] * change
        return (v_bit + factors[0] * change, change), None

    start = jnp.zeros((columns, cells.shape[0], rows), jnp.float32)
    factors = jnp.asarray(_chebyshev(_coupling(wires, rows, columns, most_uS)), jnp.float32)
    (v_bit, _), _ = jax.lax.scan(step, (start, start), factors)
    return (word_lines.voltages(v_bit) - v_bit).transpose(1, 2, 0)


class _Ladder:
    """Lines whose nodes stand along the first axis: wire from node to node and to the held end, a load at each node.

    load: uS, [nodes, ...]. ohm: of the wire between two nodes. end: voltage of the held end. both: so is the far end.
    """

    def __init__(self, load: Array, ohm: float, end: Array, *, both: bool) -> None:
        self._load = load * jnp.float32(ohm * OHM_uS)  # in units of the wire's conductance, as all below
        self._end = jnp.broadcast_to(end, load.shape[1:])
        self._far = self._end * float(both)

        def pass_on(beyond: Array, load: Array) -> tuple[Array, Array]:
            here = load + beyond
            return here / (1 + here), here

        beyond = jnp.full(load.shape[1:], float(both), jnp.float32)
        _, self._admittance = jax.lax.scan(pass_on, beyond, self._load, reverse=True)

    def voltages(self, loads_at: Array) -> Array:
        """Voltages of the nodes where the other ends of the loads have such voltages [nodes, ...]."""

        def pass_on(beyond: Array, node: tuple[Array, Array]) -> tuple[Array, Array]:
            current = node[0] + beyond
            return current / (1 + node[1]), current

        def follow(before: Array, node: tuple[Array, Array]) -> tuple[Array, Array]:
            here = (before + node[0]) / (1 + node[1])
            return here, here

        _, currents_in = jax.lax.scan(pass_on, self._far, (self._load * loads_at, self._admittance), reverse=True)
        return jax.lax.scan(follow, self._end, (currents_in, self._admittance))[1]


def _coupling(wires: Wires, rows: int, columns: int, most_uS: float) -> float:
    """The largest factor by which an error of the bit lines' voltages comes back from the word lines, 0 to 1."""

    def passed_on(ohm: float, nodes: int, *, both: bool) -> float:
        stiffness = 4 * math.sin(math.pi / 2 / (nodes + 1 if both else 2 * nodes + 1)) ** 2
        return ohm * OHM_uS * most_uS / (ohm * OHM_uS * most_uS + stiffness)

    return passed_on(wires.word_line_ohm, columns, both=wires.driven_at == "both") * passed_on(
        wires.bit_line_ohm, rows, both=wires.sensed_at == "both"
    )


def _chebyshev(coupling: float) -> list[tuple[float, float]]:
    """(step, momentum) of each iteration, for errors that come back by factors from 0 to `coupling`."""
    root = math.sqrt(1 - coupling)
    rate, half = (1 - root) / (1 + root), coupling / 2
    count = 1 + max(1, math.ceil(math.log(TOLERANCE / 2) / math.log(rate)) if rate > 0 else 0)
    steps = [(1 / (1 - half), 0.0)]
    for number in range(1, count):
        ahead = steps[-1][0]
        momentum = (half * ahead) ** 2 / (2 if number == 1 else 4)
        steps.append((1 / (1 - half - momentum / ahead), momentum))
    return steps
