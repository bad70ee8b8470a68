"""One institution as the hub sees it."""

from dataclasses import dataclass

from server_train.pooling.institutions.generators import Generator
from server_train.pooling.institutions.site import Site


@dataclass(frozen=True, kw_only=True, eq=False)
class Institution:
    """One institution as the hub sees it: its verified bundle, and what can be asked of it.

    Attributes:
        name: Its name, unique among the institutions of a pool.
        generator: The generator of its bundle, which draws rows and holds the class head.
        site: The statistics that joint components are fitted to; None: no pairs travelled.
        fault: Why its statistics contradict each other, in plain words; None: they do not.
    """

    name: str
    generator: Generator
    site: Site | None = None
    fault: str | None = None
