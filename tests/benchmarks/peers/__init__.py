"""This tool beside its peers: the same networks, batches and converters, in turn, in the same minutes."""
