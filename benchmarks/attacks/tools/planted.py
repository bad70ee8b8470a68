"""The bugs that `mutations.py` plants, as data: what is changed in which file, and the tests that must notice.

Each is a bug that somebody could write in good faith, and the changed code still runs from end to end. `old` must occur
exactly once in its file.
"""

from dataclasses import dataclass

ACCOUNTS = "tests/end_to_end/fit/test_accounts_for_every_read.py"
LEAKS = "tests/end_to_end/fit/test_leaks_nothing.py"
AUDIT = "tests/distill/privacy/test_noise_audit.py"
CELLS = "tests/distill/privacy/test_cells.py"
CLAIMS = "tests/distill/guards/test_claims.py"
DOOR = "tests/distill/guards/test_door.py"
MORE = "tests/distill/guards/test_more.py"
SAME_BYTES = "tests/distill/guards/test_non_interference.py"
SIDE_EFFECTS = "tests/distill/guards/test_side_effects.py"
TABLE = "tests/distill/privacy/test_private_table.py"
TWINS = "tests/distill/guards/test_twins.py"
RECORDS = "tests/distill/privacy/test_record_gradients.py"
SCORES = "tests/server_train/evaluation/test_row_scores.py"

RUN_DIFFERS = f"{SAME_BYTES}::test_other_rows_with_the_same_answers_give_the_same_bytes"
UNLIKE = f"{MORE}::test_rows_of_another_law_with_the_same_answers_give_the_same_bytes"
CLOSED = f"{MORE}::test_only_the_door_touches_what_lies_behind_it"
READS_MATCH = f"{ACCOUNTS}::test_the_reads_and_the_ledgers_events_match_one_to_one"
MOVES = f"{TWINS}::test_no_answer_of_a_release_moves_by_more_than_its_sensitivity"
ONE_MORE = f"{TWINS}::test_one_row_more_among_many_alike_moves_a_sum_by_what_it_adds_alone"
EACH_JOINS = f"{DOOR}::test_each_unit_joins_each_step_on_its_own"
EACH_COORDINATE = f"{DOOR}::test_each_coordinate_of_each_network_has_its_whole_noise"
LAST_BIT = f"{RECORDS}::test_factors_of_a_record_are_the_same_to_the_last_bit_beside_any_others"
LENGTH = f"{RECORDS}::test_one_record_more_anywhere_moves_the_sum_by_what_it_adds_alone_and_that_is_no_longer_than_its_length"
NEXT_DAY = f"{SAME_BYTES}::test_a_release_that_ends_on_the_next_day_is_dated_by_its_reservation"


@dataclass(frozen=True)
class Change:
    """One edit: `old`, which occurs once in `file`, becomes `new`."""

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Plant:
    """One bug.

    Attributes:
        name: For `--only`.
        kind: What it spoils.
        says: What it is, in one line.
        changes: All edits that make it.
        tests: Node ids of the tests that are to notice it; one is enough.
    """

    name: str
    kind: str
    says: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]


NOISE = "noise"
SAMPLING = "samples"
SUMS = "sums and clipping"
LOCAL = "a row's part follows other rows"
BESIDE = "real rows beside the door"
PAYING = "reads and what pays for them"
CLAIM = "claims"
TRACES = "traces in what leaves"

_TABLE, _MECHANISMS, _ENCODE = (
    "distill/privacy/private_table.py",
    "distill/privacy/noise.py",
    "distill/synthesis/stages/encode.py",
)
_DISTILLATION, _PIPELINE, _VECTORS = (
    "distill/synthesis/pipeline.py",
    "distill/releases/fit.py",
    "distill/privacy/row_vectors.py",
)
_DISCRIMINATE, _REPRESENT, _CELLS = (
    "distill/synthesis/stages/discriminate.py",
    "distill/synthesis/stages/represent.py",
    "distill/privacy/cells.py",
)
_GRADIENTS = "distill/privacy/record_gradients.py"

_SAMPLE = "chosen = self._sampled(paid.sampling_rate)"
_STEP = "        autoencoder.step(table, plan, rows=counts.total)\n"
_MEASURE = "        _measure_level(table, trees, active, level, [stddev * finer[i] for i in active], heavy)\n"
_STREAMS = 'draws = streams(rng, ("relate", "represent", "cluster", "refine", "select"))'
_NEAREST = "towards = exact.product(points, centres.T) - np.square(exact.on_grid(centres)).sum(axis=1) / 2"
_REAL_ROWS = "torch.as_tensor(np.stack([table._codes[c] for c in _class_last(table)], axis=1).astype(np.int64))"
_REAL_LOSS = f"""
        real = {_REAL_ROWS}
        said = layout.log_softmax(autoencoder.decode(autoencoder.latent_mean(real)))
        loss = -float(said.gather(1, real + torch.as_tensor(layout.starts)).sum(1).mean())
"""

PLANTS = (
    # ---- noise ------------------------------------------------------------------------------------------------------
    Plant(
        "halved-noise-on-gradients",
        NOISE,
        "gradients get half of the planned noise",
        (Change(_TABLE, "stddev=paid.cell_stddev * 2.0**bits)", "stddev=paid.cell_stddev * 2.0**bits / 2)"),),
        (f"{EACH_COORDINATE}[nobody joins-1]",),
    ),
    Plant(
        "halved-noise-on-gaussian-counts",
        NOISE,
        "Gaussian counts get half of the planned noise",
        (Change(_MECHANISMS, "fine = stddev * 2.0**FINE_BITS", "fine = stddev * 2.0 ** (FINE_BITS - 1)"),),
        (f"{DOOR}::test_each_cell_of_each_block_has_its_whole_noise[gaussian]",),
    ),
    Plant(
        "halved-noise-on-laplace-counts",
        NOISE,
        "Laplace counts get half of the planned noise",
        (Change(_TABLE, "laplace_counts(c, scale=paid.cell_stddev)", "laplace_counts(c, scale=paid.cell_stddev / 2)"),),
        (f"{DOOR}::test_each_cell_of_each_block_has_its_whole_noise[laplace]",),
    ),
    Plant(
        "halved-noise-on-the-row-count",
        NOISE,
        "the row count gets half of the planned noise",
        (Change(_TABLE, "(self._n, scale=paid.cell_stddev)", "(self._n, scale=paid.cell_stddev / 2)"),),
        (f"{AUDIT}::test_the_released_size_follows_the_stated_law",),
    ),
    Plant(
        "noise-for-one-row-of-a-unit",
        NOISE,
        "gradients get the noise for one row where a unit has three",
        (
            Change(
                _TABLE,
                "stddev=paid.cell_stddev * 2.0**bits)",
                "stddev=paid.cell_stddev / self._rows_per_unit * 2.0**bits)",
            ),
        ),
        (f"{EACH_COORDINATE}[nobody joins-3]",),
    ),
    Plant(
        "no-noise-in-an-empty-step",
        NOISE,
        "a step that nobody joined gets no noise",
        (
            Change(
                _TABLE,
                "for start in range(0, len(chosen), ROWS_AT_ONCE):",
                "total *= bool(len(chosen))\n        for start in range(0, len(chosen), ROWS_AT_ONCE):",
            ),
        ),
        (f"{EACH_COORDINATE}[nobody joins-1]",),
    ),
    Plant(
        "last-coordinate-without-noise",
        NOISE,
        "where there are several coordinates, the last gets no noise",
        (Change(_TABLE, _SAMPLE, f"total[-1:] *= len(total) == 1\n        {_SAMPLE}"),),
        (f"{EACH_COORDINATE}[nobody joins-1]",),
    ),
    Plant(
        "noise-used-again",
        NOISE,
        "gradient noise is drawn once and used in every step",
        (
            Change(
                _MECHANISMS,
                "        return self._draws.lattice_normal(size, stddev)\n",
                '        if len(getattr(self, "_kept", ())) != size:\n'
                "            self._kept = self._draws.lattice_normal(size, stddev)\n"
                "        return self._kept.copy()\n",
            ),
        ),
        (f"{DOOR}::test_the_noise_of_successive_steps_is_drawn_anew",),
    ),
    Plant(
        "float-noise",
        NOISE,
        "gradient noise is one float draw, added to the sum as a float: answers off the lattice",
        (
            Change(
                _TABLE,
                "total = self._noise.lattice_gaussian(sum(g.size for g in gradients), stddev=paid.cell_stddev * 2.0**bits)",
                "total = np.random.default_rng().normal(0.0, paid.cell_stddev * 2.0**bits, sum(g.size for g in gradients))",
            ),
        ),
        (f"{DOOR}::test_every_answer_is_a_whole_number_of_steps_whoever_is_in_the_table",),
    ),
    # ---- samples ----------------------------------------------------------------------------------------------------
    Plant(
        "sample-used-twice",
        SAMPLING,
        "each Poisson sample is used for two steps",
        (
            Change(
                _TABLE,
                _SAMPLE,
                "if self.reads[event] % 2:\n"
                "            self._last = self._sampled(paid.sampling_rate)\n"
                "        chosen = self._last",
            ),
        ),
        (f"{EACH_JOINS}[1]",),
    ),
    Plant(
        "fixed-batches",
        SAMPLING,
        "every sample has the size that is expected of it",
        (
            Change(
                _MECHANISMS,
                "return self._draws.poisson_sample(size, rate)",
                "return np.sort(self._draws.permutation(size)[: round(size * rate)])",
            ),
        ),
        (f"{EACH_JOINS}[1]",),
    ),
    Plant(
        "shuffled-epochs",
        SAMPLING,
        "rows are shuffled, and each joins one step an epoch",
        (
            Change(
                _MECHANISMS,
                "        return self._draws.poisson_sample(size, rate)\n",
                "        many = max(1, round(size * rate))\n"
                '        left = getattr(self, "_epoch", np.zeros(0, dtype=np.int64))\n'
                "        left = left if len(left) >= many else self._draws.permutation(size)\n"
                "        self._epoch = left[many:]\n"
                "        return np.sort(left[:many])\n",
            ),
        ),
        (f"{EACH_JOINS}[1]",),
    ),
    Plant(
        "rows-of-a-unit-join-alone",
        SAMPLING,
        "rows are sampled one by one where units have several",
        (Change(_TABLE, "if self._firsts is None:", "if self._n:"),),
        (f"{TABLE}::test_a_sample_holds_whole_units_each_on_its_own",),
    ),
    Plant(
        "sampling-rate-by-the-true-count",
        SAMPLING,
        "the sampling rate follows from the true number of rows",
        (
            Change(
                _TABLE,
                _SAMPLE,
                "from distill.privacy.events import sampling_rate\n\n        chosen = self._sampled(sampling_rate(self._n))",
            ),
        ),
        (f"{TABLE}::test_a_gradient_sees_a_poisson_sample_at_the_events_rate",),
    ),
    # ---- sums and clipping ------------------------------------------------------------------------------------------
    Plant(
        "exact-batch-size-as-normaliser",
        SUMS,
        "a step's sum is divided by the exact size of its sample",
        (
            Change(_TABLE, "np.split(total * 2.0**-bits, ", "np.split(total * 2.0**-bits / max(len(chosen), 1), "),
            Change(_REPRESENT, "noisy / (rows * plan.event(EVENT).sampling_rate)", "noisy"),
            Change(_DISCRIMINATE, "expected = rows * plan.event(EVENT).sampling_rate", "expected = 1.0"),
        ),
        (ONE_MORE,),
    ),
    Plant(
        "no-clipping",
        SUMS,
        "a record's gradient is not clipped",
        (
            Change(
                "distill/privacy/dpsgd.py",
                "np.maximum(np.sqrt(np.where(usable, squares, 1.0)), clip)",
                "np.full_like(squares, clip)",
            ),
        ),
        (f"{MOVES}[classes]",),
    ),
    Plant(
        "clipping-in-one-network",
        SUMS,
        "of several networks only the first has its gradients clipped",
        (
            Change(
                _TABLE,
                "clipped_sum(g.factors(records), clip=g.clip, length=length, bits=bits)",
                "clipped_sum(g.factors(records), clip=g.clip * far, length=length * far, bits=bits)",
            ),
            Change(
                _TABLE,
                "                for g, length in zip(gradients, lengths, strict=True)\n",
                "                for g, length, far in zip(gradients, lengths, [1, *[1e6] * len(gradients)], strict=False)\n",
            ),
        ),
        (ONE_MORE,),
    ),
    Plant(
        "one-hot-gradients-rounded",
        SUMS,
        "gradients of one-hot rows are rounded to the lattice, not cut",
        (
            Change(
                _VECTORS,
                "np.trunc(outputs * (self._scale * 2.0**bits))",
                "np.rint(outputs * (self._scale * 2.0**bits))",
            ),
            Change(_VECTORS, "np.trunc(outputs * 2.0**bits)", "np.rint(outputs * 2.0**bits)"),
        ),
        (LENGTH,),
    ),
    Plant(
        "dense-gradients-rounded",
        SUMS,
        "gradients of rows of numbers are rounded to the lattice, not cut",
        (
            Change(
                _VECTORS,
                "np.trunc(outputs * 2.0 ** (bits - exact.GRID_BITS))",
                "np.rint(outputs * 2.0 ** (bits - exact.GRID_BITS))",
            ),
        ),
        (LENGTH,),
    ),
    # ---- a row's part follows other rows ----------------------------------------------------------------------------
    Plant(
        "hidden-layer-centred",
        LOCAL,
        "the autoencoder's hidden layer is centred by the mean of the batch",
        (
            Change(
                _GRADIENTS,
                "encoded = Dense(np.maximum(rows.times(w1) + b1, 0))",
                "encoded = Dense(np.maximum(rows.times(w1) - rows.times(w1).mean(axis=0) + b1, 0))",
            ),
        ),
        (LAST_BIT,),
    ),
    Plant(
        "one-hot-rows-centred",
        LOCAL,
        "one-hot rows are centred by the mean of the batch",
        (
            Change(
                _VECTORS,
                "return np.asarray(self._scale * np.asarray(self._ones @ np.ascontiguousarray(weight.T, dtype=np.float64)))",
                "found = self._scale * np.asarray(self._ones @ np.ascontiguousarray(weight.T, dtype=np.float64))\n"
                "        return np.asarray(found - found.mean(axis=0))",
            ),
        ),
        (LAST_BIT,),
    ),
    Plant(
        "latent-noise-by-place",
        LOCAL,
        "a record's latent noise goes by its place in the batch",
        (
            Change(
                _GRADIENTS,
                "noise = self.pool[(codes @ self.multipliers) % len(self.pool)]",
                "noise = self.pool[np.arange(len(codes)) % len(self.pool)]",
            ),
        ),
        (f"{MOVES}[classes]",),
    ),
    Plant(
        "cluster-by-float32-product",
        LOCAL,
        "the nearest cluster is found by a float32 product",
        (
            Change(
                _CELLS,
                _NEAREST,
                "near = points.astype(np.float32), centres.T.astype(np.float32)\n"
                "    towards = near[0] @ near[1] - np.square(near[1]).sum(axis=0) / 2",
            ),
        ),
        (f"{CELLS}::test_a_row_midway_between_two_centres_goes_to_the_first_beside_any_others",),
    ),
    Plant(
        "cluster-by-cdist",
        LOCAL,
        "the nearest cluster is found by torch.cdist",
        (
            Change(
                _CELLS,
                _NEAREST,
                "import torch\n\n"
                "    near = torch.as_tensor(np.asarray(points, np.float32)), torch.as_tensor(np.asarray(centres, np.float32))\n"
                "    towards = -torch.cdist(*near).numpy()",
            ),
        ),
        (f"{CELLS}::test_a_row_midway_between_two_centres_goes_to_the_first_beside_any_others",),
    ),
    Plant(
        "scores-a-batch-at-a-time",
        LOCAL,
        "scores of a private evaluation are computed in float32, a batch at a time",
        (
            Change(
                "server_train/evaluation/private_scorer.py",
                "probabilities = row_probabilities(self.model, frame)",
                "probabilities = self.model.predict(frame)",
            ),
        ),
        (f"{SCORES}::test_what_is_counted_of_a_row_follows_from_it_alone[two classes-mlp]",),
    ),
    # ---- real rows beside the door ----------------------------------------------------------------------------------
    Plant(
        "generator-inside-the-gradient",
        BESIDE,
        "one generator draws the latent noise inside the private gradient and later starts candidates (as at 1c36b01)",
        (
            Change(_REPRESENT, "pool=self.rng.standard_normal((POOL, LATENT)),", "pool=_ByPlace(self.rng),"),
            Change(
                _REPRESENT,
                "class Autoencoder:\n",
                "class _ByPlace:\n"
                "    def __init__(self, rng):\n"
                "        self.rng = rng\n\n"
                "    def __len__(self):\n"
                "        return POOL\n\n"
                "    def __getitem__(self, chosen):\n"
                "        return self.rng.standard_normal((len(chosen), LATENT))\n\n\n"
                "class Autoencoder:\n",
            ),
            Change(
                _DISTILLATION, _STREAMS, _STREAMS.replace("streams(rng, ", "dict.fromkeys(").replace("))", "), rng)")
            ),
        ),
        (f"{RUN_DIFFERS}[classes]",),
    ),
    Plant(
        "generator-advanced-by-a-read",
        BESIDE,
        "the critic's labels are smoothed by one draw a row, from the generator that candidates are drawn with",
        (
            Change(_DISCRIMINATE, "self.layout = layout\n", "self.layout, self.rng = layout, rng\n"),
            Change(
                _DISCRIMINATE,
                '        return Network(layers, loss="real", share=share, starts=self.layout.starts)\n',
                "        rng = self.rng\n\n"
                "        class Smoothed(Network):\n"
                "            def factors(self, records):\n"
                "                found = super().factors(records)\n"
                "                found[-1].outputs[:] *= 1 - 0.1 * rng.random((len(records.classes), 1))\n"
                "                return found\n\n"
                '        return Smoothed(layers, loss="real", share=share, starts=self.layout.starts)\n',
            ),
        ),
        (f"{SIDE_EFFECTS}::test_a_read_leaves_nothing_behind[classes]",),
    ),
    Plant(
        "pairs-by-exact-counts",
        BESIDE,
        "the pairs of a wide table are chosen by exact counts, which a cell's `of` keeps",
        (
            Change(
                "distill/synthesis/stages/relate.py",
                "    cells = [Lookup((features[i], features[j]), (groups[i], groups[j]), both) for i, j in pairs]\n"
                "    released = table.noisy_counts(event.name, cells, [event.cell_stddev] * len(pairs))\n",
                "    kept = {}\n\n"
                "    class Kept(Lookup):\n"
                "        def of(self, rows):\n"
                "            found = super().of(rows)\n"
                "            kept[self.columns] = kept.get(self.columns, 0) + np.bincount(found, minlength=self.size)\n"
                "            return found\n\n"
                "    cells = [Kept((features[i], features[j]), (groups[i], groups[j]), both) for i, j in pairs]\n"
                "    table.noisy_counts(event.name, cells, [event.cell_stddev] * len(pairs))\n"
                "    released = [kept[block.columns] for block in cells]\n",
            ),
        ),
        (f"{MORE}::test_the_pairs_of_a_wide_table_are_chosen_by_noisy_counts_alone",),
    ),
    Plant(
        "bounds-from-data",
        BESIDE,
        "bins lie between the smallest and the largest real value only",
        (
            Change(
                _ENCODE,
                _MEASURE,
                f"{_MEASURE}"
                "        for tree, codes in ((trees[i], table._codes[i]) for i in active if trees[i].grid.depth):\n"
                "            at = codes[codes < tree.grid.leaves] // tree.width(level)\n"
                "            tree.counts[-1][(tree.nodes[-1] < at.min()) | (tree.nodes[-1] > at.max())] = 0.0\n",
            ),
        ),
        (f"{UNLIKE}[classes]", f"{CLOSED}[classes]"),
    ),
    Plant(
        "categories-from-data",
        BESIDE,
        "categories of fewer than ten real rows are dropped",
        (
            Change(
                _ENCODE,
                _MEASURE,
                f"{_MEASURE}"
                "        for tree, codes in ((trees[i], table._codes[i]) for i in active if not trees[i].grid.depth):\n"
                "            held = np.bincount(codes, minlength=tree.grid.cells)\n"
                "            tree.counts[-1][held[tree.nodes[-1]] < 10] = 0.0\n",
            ),
        ),
        (f"{UNLIKE}[classes]", f"{CLOSED}[classes]"),
    ),
    Plant(
        "clustered-real-rows",
        BESIDE,
        "encoded real rows are clustered, not private samples",
        (
            Change(
                _DISTILLATION,
                "latents = autoencoder.latent_mean(layout.draw(logits, rng))",
                f"latents = autoencoder.latent_mean({_REAL_ROWS})",
            ),
        ),
        (f"{RUN_DIFFERS}[classes]",),
    ),
    Plant(
        "stopped-by-real-rows",
        BESIDE,
        "DP-SGD stops when the exact loss on real rows no longer falls",
        (
            Change(
                _DISTILLATION,
                _STEP,
                f"{_STEP}{_REAL_LOSS}        if i and loss >= best:\n            break\n        best = loss\n",
            ),
        ),
        (f"{UNLIKE}[classes]", f"{CLOSED}[classes]"),
    ),
    Plant(
        "best-step-by-real-rows",
        BESIDE,
        "of all DP-SGD steps the network with the least exact loss on real rows is kept",
        (
            Change(
                _DISTILLATION,
                _STEP,
                f"{_STEP}{_REAL_LOSS}"
                "        if not i or loss < best:\n"
                "            best, kept = loss, [p.detach().clone() for p in autoencoder._parameters]\n",
            ),
            Change(
                _DISTILLATION,
                "    return autoencoder\n",
                "    with torch.no_grad():\n"
                "        for parameter, found in zip(autoencoder._parameters, kept, strict=True):\n"
                "            parameter.copy_(found)\n"
                "    return autoencoder\n",
            ),
        ),
        (f"{UNLIKE}[classes]", f"{CLOSED}[classes]"),
    ),
    Plant(
        "plan-by-the-true-count",
        BESIDE,
        "the plan follows from the true number of rows",
        (Change(_PIPELINE, "_plan(request, noisy_size, ", "_plan(request, table._n, "),),
        (f"{LEAKS}::test_no_rate_step_or_noise_of_the_plan_follows_the_exact_row_count",),
    ),
    Plant(
        "normaliser-by-the-true-count",
        BESIDE,
        "the autoencoder's gradients are divided by the true number of rows",
        (Change(_DISTILLATION, _STEP, _STEP.replace("counts.total", "float(table._n)")),),
        (f"{RUN_DIFFERS}[classes]",),
    ),
    # ---- reads and what pays for them -------------------------------------------------------------------------------
    Plant(
        "read-without-an-event",
        PAYING,
        "the door answers a read that names no reserved event, and a stage asks for one",
        (
            Change(
                _TABLE,
                '            raise UnpaidReadError(f"no reserved event {name!r} pays for this read; reserve it in the ledger first.")\n',
                "            self.reads[name] = 1\n"
                '            return Event.model_validate({"name": name, "mechanism": mechanism, "noise_multiplier": 9.0})\n',
            ),
            Change(
                "distill/synthesis/stages/cluster.py",
                "    return project_to_simplex(counts.astype(np.float64))\n",
                '    (again,) = table.noisy_counts("cluster.again", [cells], [event.cell_stddev])\n'
                "    return project_to_simplex((counts + again).astype(np.float64))\n",
            ),
        ),
        (READS_MATCH, f"{TABLE}::test_an_unpaid_read_is_refused_before_any_row_is_looked_at"),
    ),
    Plant(
        "count-past-the-door",
        PAYING,
        "a stage takes exact counts past the door and adds noise of its own, charged to nobody",
        (
            Change(
                "distill/synthesis/stages/cluster.py",
                "    return project_to_simplex(counts.astype(np.float64))\n",
                "    from distill.privacy.noise import NoiseSource\n\n"
                "    again = NoiseSource().gaussian_counts(table._counted([cells])[0], stddev=event.cell_stddev)\n"
                "    return project_to_simplex((counts + again).astype(np.float64))\n",
            ),
        ),
        (f"{CLOSED}[classes]", f"{RUN_DIFFERS}[classes]"),
    ),
    Plant(
        "one-step-more-than-planned",
        PAYING,
        "the door does not count runs, and the autoencoder takes one step more than is planned",
        (
            Change(_TABLE, "if self.reads.get(name, 0) >= event.count:", "if event.count < 1:"),
            Change(
                _DISTILLATION,
                "steps = plan.event(represent.EVENT).count",
                "steps = plan.event(represent.EVENT).count + 1",
            ),
        ),
        (READS_MATCH, f"{TABLE}::test_each_event_pays_for_as_many_reads_as_planned_and_they_are_counted"),
    ),
    # ---- claims -----------------------------------------------------------------------------------------------------
    Plant(
        "unit-not-checked-when-reserving",
        CLAIM,
        "a release begins under a ledger of another unit",
        (
            Change(
                "distill/releases/lifecycle.py",
                "    require_unit(request.schema, ledger)\n    if isinstance(",
                "    if isinstance(",
            ),
        ),
        (f"{CLAIMS}::test_no_release_is_made_under_a_ledger_of_another_unit[unit-training]",),
    ),
    Plant(
        "unit-not-checked-by-the-reader",
        CLAIM,
        "the reader takes a bundle that states its cost for another unit than its schema's",
        (Change("distill/exchange/manifest.py", "if privacy.unit != schema.counted_unit:", "if not privacy.unit:"),),
        (f"{CLAIMS}::test_a_reader_refuses_a_manifest_whose_claim_is_not_that_of_its_schema[row]",),
    ),
    # ---- traces in what leaves --------------------------------------------------------------------------------------
    Plant(
        "times-in-milliseconds",
        TRACES,
        "ledger entries carry milliseconds",
        (
            Change(
                "distill/common/metadata.py",
                'datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0).isoformat(timespec="minutes")',
                'datetime.now(UTC).isoformat(timespec="milliseconds")',
            ),
        ),
        (f"{SAME_BYTES}::test_no_time_within_the_day_is_in_what_leaves",),
    ),
    Plant(
        "commit-by-its-own-day",
        TRACES,
        "a commit is dated by its own day, not by the reservation's",
        (
            Change(
                "distill/ledger/reservation.py",
                'return self._append("commit", body)',
                'return self.ledger.append("commit", body, actor=self._actor, key=self._key)',
            ),
        ),
        (f"{MORE}::test_every_entry_of_a_release_is_dated_by_its_reservation[classes]",),
    ),
    Plant(
        "modelling-seed-kept",
        TRACES,
        "the bundle's settings hold the seed of modelling, under another name",
        (
            Change(
                _PIPELINE,
                "    rows = request.samples if ",
                '    settings["start"] = str(rng.bit_generator.seed_seq.entropy)\n    rows = request.samples if ',
            ),
        ),
        (f"{MORE}::test_no_seed_is_in_what_leaves_whatever_it_is_called[classes]",),
    ),
    Plant(
        "noise-seed-kept",
        TRACES,
        "noise of gradients comes from a seeded generator, and its seed is in the bundle",
        (
            Change(
                "distill/releases/lifecycle.py",
                "        known = None if noise.rehearsal else request.known_tables\n",
                "        from distill.privacy.random_source import SeededRandom\n\n"
                "        noise._draws = SeededRandom(noise._rng)\n"
                "        known = None if noise.rehearsal else request.known_tables\n",
            ),
            Change(
                _PIPELINE,
                "    return _publish(request, release, key, plan, distilled, rng)\n",
                "    return _publish(request, release, key, plan, distilled, release.table._noise._rng)\n",
            ),
            Change(
                _PIPELINE,
                "    rows = request.samples if ",
                '    settings["start"] = str(rng.bit_generator.seed_seq.entropy)\n    rows = request.samples if ',
            ),
        ),
        (f"{MORE}::test_no_seed_is_in_what_leaves_whatever_it_is_called[classes]",),
    ),
    Plant(
        "file-dated-by-its-writing",
        TRACES,
        "the bundle's file is dated by the moment of writing",
        (
            Change(
                "distill/releases/placement.py",
                "            files.date(temporary, reservation.day)\n",
                "",
            ),
        ),
        (NEXT_DAY,),
    ),
)
