"""The mapper beside its peers: the networks of their published configurations."""
