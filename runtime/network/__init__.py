"""A lowered network as a JAX function."""
