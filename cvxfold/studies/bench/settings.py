"""What a benchmark is asked."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BenchSettings:
    """What to measure.

    Args:
        families, peers: by name; empty: all families, the usual peers.
        sizes: of every family; empty: each one's own. batches: likewise.
        rounds: how often each peer has its turn, after a first call that is not measured.
        in_a_row: passes that it makes in a turn, each on other values. With one, code and data are in no
            caches; with more they are, as in a loop that calls one layer over and over.
        threads: for everybody; None leaves each to its own choice.
        seed: of the values, the loss and the order.
        time_limit: seconds that a peer may spend on a cell: more rounds than that are left out, and a peer
            that would need more for one pass is skipped.
        profile: whether to split cvxfold's own time by stage.
        training: steps of a training with slowly changing values; 0 for none.
        device: where the parameters are, as PyTorch names it. Peers that have no use for it are given the
            same values on the CPU.
        most_on_host: instances that such peers are given at most; their times are then scaled to the batch.
    """

    families: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    batches: tuple[int, ...] = ()
    rounds: int = 7
    in_a_row: int = 1
    threads: int | None = None
    seed: int = 0
    time_limit: float = 20.0
    profile: bool = False
    training: int = 0
    device: str = "cpu"
    most_on_host: int = 256
