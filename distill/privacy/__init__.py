"""Events and what they cost, noise, and the one door to private rows.

A stage never sees a row: it hands the door values in public terms, the door computes, clips, sums and adds the noise
that a paid event says.

    events            what is paid for             accountant        what it costs, by two accountants
    private_table     the door                     noise             counts with noise
    cells             what is counted              lattice_noise     discrete Gaussian noise
    row_vectors       a row as numbers             record_gradients  what a record adds to a gradient
    dpsgd             clipped sums                 random_source     random bits of the system
"""

__all__: list[str] = []
