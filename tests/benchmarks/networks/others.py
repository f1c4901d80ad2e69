"""Inputs of networks that take neither pictures, nor sound, nor text."""

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.networks.source import Inputs, Source

PADDING = 256  # what magika puts where a file has no byte
HALF = 1024


def file_bytes(source: Source) -> Inputs:
    """First and last 1,024 bytes, without white space, of files of the packages and of Python, of each ending alike."""
    folders = [source.package, *source.photos, Path(sys.prefix) / "lib"]
    found = [path for folder in folders for path in sorted(folder.rglob("*"))[:4000] if path.is_file()]
    files = [path for path in found if path.stat().st_size > 16]
    by_ending = [
        [path for path in files if path.suffix == ending] for ending in sorted({path.suffix for path in files})
    ]
    groups = [by_ending[index % len(by_ending)] for index in range(source.count)]
    chosen = [group[source.random.integers(len(group))] for group in groups]
    return {"bytes": np.stack([bytes_of_file(path) for path in chosen])}


def bytes_of_file(path: Path) -> NDArray[np.int32]:
    """First and last 1,024 bytes of a file, without white space before and behind."""
    with path.open("rb") as file:
        first = file.read(4 * HALF).lstrip()[:HALF]
        file.seek(max(0, path.stat().st_size - 4 * HALF))
        last = file.read().rstrip()[-HALF:]
    sample = np.full(2 * HALF, PADDING, np.int32)
    sample[: len(first)] = np.frombuffer(first, np.uint8)
    sample[2 * HALF - len(last) :] = np.frombuffer(last, np.uint8)
    return sample


def hyperparameters(source: Source, *, name: str) -> Inputs:
    """Folds, data set, depth and number of trees, as the surrogate's own search space has them."""
    draw = source.random.integers
    columns = [draw(2, 11, source.count), np.zeros(source.count), draw(2, 26, source.count), draw(5, 200, source.count)]
    return {name: np.stack(columns, axis=1).astype(np.float32)}


def protein_graph(source: Source, *, residues: int) -> Inputs:
    """A chain of residues of six atoms on a helix, with an edge between any two atoms that are near."""
    atoms, random = 6 * residues, source.random
    turn = np.arange(atoms) * np.radians(100) / 6
    place = np.stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 0.25 * np.arange(atoms)], axis=1)
    distance = np.linalg.norm(place[:, None] - place[None], axis=2)
    edges = np.stack(np.nonzero((distance < 5.0) & (distance > 0)))
    count, residue = edges.shape[1], np.arange(atoms) // 6
    steps = np.abs(residue[edges[0]] - residue[edges[1]])
    kinds = random.integers(0, 20, residues)
    graph = {
        "element": random.integers(0, 5, atoms),
        "amino_acid": kinds[residue],
        "atom_role": np.arange(atoms) % 6,
        "bfactor": random.uniform(0, 1, atoms),
        "edge_index": edges,
        "edge_dist": distance[edges[0], edges[1]],
        "seq_sep": np.minimum(steps, 32),
        "same_residue": steps == 0,
        "target_indices": np.arange(atoms).reshape(residues, 6),
        "target_mask": np.ones((residues, 6), bool),
        "residue_types": kinds,
        "residue_geometry": random.uniform(-1, 1, (residues, 52)),
        "target_environment": random.uniform(0, 1, (residues, 6, 15)),
        "temperature_feature": np.zeros((residues, 1)),
        "target_atom_rsasa": random.uniform(0, 1, (residues, 6)),
        "pos": place,
        "node_normal": place / np.linalg.norm(place, axis=1, keepdims=True),
        "is_hbond": np.zeros(count),
        "hb_cos": np.zeros(count),
    }
    whole = {"element", "amino_acid", "atom_role", "edge_index", "seq_sep", "target_indices", "residue_types"}
    kind = {name: np.dtype(np.int64 if name in whole else np.float32) for name in graph} | {
        "target_mask": np.dtype(bool)
    }
    return {name: np.asarray(array, kind[name])[None] for name, array in graph.items()}
