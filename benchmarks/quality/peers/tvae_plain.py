"""TVAE, not private; see `plain_networks.py`."""

import peer
import plain_networks


def fit(task: peer.Task) -> peer.Sample:
    with peer.imports:
        from ctgan import TVAE

    def make(epochs: int) -> TVAE:
        return TVAE(epochs=epochs)

    return plain_networks.fit_with(task, make)


if __name__ == "__main__":
    peer.leave(peer.run(fit, install=plain_networks.INSTALL, private=False, notes=plain_networks.NOTES))
