"""Which constants of a network are trained, where its source says so (`from_torch`): metadata of the model."""

from collections.abc import Iterable, Mapping, MutableMapping

# Keys of lists, one name a line.
TRAINED, FIXED, UNUSED = "ai.cimc.trained", "ai.cimc.fixed", "ai.cimc.unused"


def names_stated(metadata: Mapping[str, str], key: str) -> frozenset[str]:
    """The parameters that are trained (`TRAINED`), keep their values (`FIXED`), or are in no node (`UNUSED`)."""
    return frozenset(metadata.get(key, "").splitlines())


def state_names(metadata: MutableMapping[str, str], key: str, names: Iterable[str]) -> None:
    """Keep the names with the network."""
    metadata[key] = "\n".join(sorted(names))
