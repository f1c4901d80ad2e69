"""Plain float32 PyTorch: no converters, no noise, no devices. The limit, not a peer."""

import torch

from tests.benchmarks.peers.torch_networks import build, runner
from tests.benchmarks.peers.work import Runner, Work, serve


def prepare(work: Work) -> Runner:
    """The runner of a work."""
    torch.set_num_threads(work.threads)
    model = build(work.network)
    optimizer = torch.optim.AdamW(model.parameters(), 0.002) if work.mode == "train" else None
    return runner(model, optimizer, work.network, work.batch)


if __name__ == "__main__":
    serve(prepare)
