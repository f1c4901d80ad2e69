"""What the columns of arrays sum up."""

from jax import Array


def currents(vectors: Array, conductance: Array) -> Array:
    """The ideal product of every array, all of them at once.

    Args:
        vectors: [blocks, rows, MVMs], DAC integers.
        conductance: [devices, blocks * rows, columns] in uS.

    Returns:
        [blocks, devices * columns, MVMs], DAC integers times uS.
    """
    blocks, rows, _ = vectors.shape
    devices, _, columns = conductance.shape
    bit_lines = conductance.reshape(devices, blocks, rows, columns).transpose(1, 0, 3, 2)
    return bit_lines.reshape(blocks, devices * columns, rows) @ vectors
