"""The faults of mutations.py: (file, tests that should notice, {name: (old, new, other tests)}).

Old texts are short, so that few changes of the code touch them; where one does, --check says so.
Tests are named below tests/ and run in the order given, the cheapest first.
"""

NAIVE = "model/test_naive_reference.py"
GOLDEN = "golden/test_golden.py::test_twelve_steps_give_the_golden_numbers"
HELM, FLOW, ENERGY = (f"{GOLDEN}[{name}-float64]" for name in ("helm", "flow", "energy"))
TWO_RANKS = "parallel/test_two_ranks.py"
POLYETHYLENE = "pretraining/test_memory.py::test_the_bound_on_pairs_is_what_polyethylene_has"
ANEW = "evaluation/test_molecule.py::test_the_same_job_is_done_once_and_another_anew"
COMPLETED = (
    "evaluation/test_molecule.py::test_the_residual_completes_with_the_baseline_stored_or_computed"
)
COST = (
    "data/test_shards.py::test_a_block_of_two_oxygen_atoms_costs_as_much_as_the_work_on_their_pair"
)
OF_PYSCF = "test_api.py::test_hamiltonian_and_energy_are_those_of_pyscf_in_its_own_order"
SPIKES = (
    "faults/test_guards.py::test_a_spike_stands_out_of_the_spread_and_noise_does_not"
    " faults/test_guards.py"
    "::test_a_spike_stands_out_of_sixteen_losses_or_more_of_the_last_sixty_four"
)

TABLE: list[tuple[str, str, dict[str, tuple[str, ...]]]] = [
    ("units.py", "test_units.py", {
        "bohr-of-another-century": ("0.52917721092", "0.52918"),
        "electron-volt-rounded": ("27.211386245988", "27.2"),
    }),
    ("irreps/coupling.py", "irreps/test_coupling.py", {
        "coupling-without-root-2L+1": ("(2 * degree + 1) ** 0.5 *", "1.0 *"),
        "coupling-lacks-the-highest-degree": ("l1 + l2 + 1", "l1 + l2"),
    }),
    ("irreps/so2.py", "irreps/test_so2.py", {
        "q-rows-of-odd-features-keep-sign": ("_negative(_row(degree, m, True))",
            "_row(degree, m, True)"),
        "v-of-odd-l+m-keeps-sign": ("(plus, -1.0)", "(plus, 1.0)"),
        "orders-end-before-mmax": ("range(mmax + 1)", "range(mmax)"),
    }),
    ("irreps/wigner.py", "irreps/test_wigner.py", {
        "half-turn-signs-of-positive-m": ("-1.0 if m < 0", "-1.0 if m > 0"),
        "frame-turns-the-other-way": ("-x / norm", "x / norm"),
        "south-pole-is-singular": ("unit[:, 2] < 0", "unit[:, 2] < -2"),
        "half-turn-forgets-y": ("-unit[:, 1], unit[:, 1])", "unit[:, 1], unit[:, 1])"),
    }),
    ("basis/layout.py", "basis/test_packing.py basis/test_equivariance.py", {
        "offsite-blocks-count-once": ("l2),\n                        weight=2**0.5",
            "l2),\n                        weight=1.0"),
        "onsite-shells-lack-the-highest-degree": ("range(0, 2 * l1 + 1, 2)", "range(0, 2 * l1, 2)"),
        "semilocal-keeps-odd-parity": ("(l1 + l2 + L) % 2 == 0", "(l1 + l2 + L) % 2 == 1"),
        "transposed-rows-sign-of-L-alone": ("(-1.0) ** (l1 + l2 + L)", "(-1.0) ** L"),
    }),
    ("basis/packing.py", "basis/test_packing.py", {
        "lower-triangle-stays-empty": ("symmetric and group.weight != 1.0",
            "symmetric and group.weight > 2.0"),
    }),
    ("basis/slots.py", "basis/test_slots.py", {
        "slots-of-a-missing-shell": ("n2 < second[l2]", "n2 <= second[l2]"),
        "matrix-elements-with-weights-of-others": ("from_numpy(value[order])", "from_numpy(value)"),
        "blocks-begin-one-late": ("sizes.cumsum(0) - sizes", "sizes.cumsum(0) - sizes + 1"),
    }),
    ("basis/assembly.py", "basis/test_assembly.py", {
        "blocks-are-not-transposed": ("[blocks, blocks.mT]", "[blocks, blocks]"),
    }),
    ("basis/conventions.py", "basis/test_conventions.py", {
        "pyscf-p-the-other-way-round": ("[1, 2, 0]", "[2, 0, 1]"),
        "orca-flips-other-orders": ("abs(m) in (3, 4)", "abs(m) in (2, 3)"),
        "from-canonical-with-the-forward-index": ("inverse[:, None], inverse",
            "index[:, None], index"),
    }),
    ("basis/electrons.py", "basis/test_electrons.py", {
        "ecp-cores-are-ignored": ("int(z) - ecp_core_electrons(basis, int(z))", "int(z)"),
        "a-cation-gains-electrons": ("atomic_numbers) - charge", "atomic_numbers) + charge"),
        "one-pair-too-few": ("return electrons // 2", "return electrons // 2 - 1"),
    }),
    ("basis/eigen.py", "basis/test_eigen.py", {
        "orthogonalizer-multiplies-by-the-root": (".rsqrt()", ".sqrt()"),
        "small-eigenvalues-are-kept": ("values_a >= threshold", "values_a <= threshold"),
    }),
    ("basis/shells.py", "basis/test_new_basis.py", {
        "g-shells-are-dropped": ("range(highest_degree(basis) + 1)", "range(4)"),
    }),
    ("basis/elements.py", "basis/test_tables.py", {
        "ecp-starts-one-element-late": ("FIRST_ECP_ELEMENT = 37", "FIRST_ECP_ELEMENT = 38"),
    }),
    ("model/trunk.py", NAIVE, {
        "edge-degree-constant-50": ("DEGREE_SCALE = 5.0", "DEGREE_SCALE = 50.0"),
        "odd-messages-reach-both-atoms-alike": ("even - odd)", "even + odd)"),
        "ranks-share-the-wrong-edges": ("self.pair_rank :: self.pair_world_size",
            "self.pair_rank + 1 :: self.pair_world_size", "model/test_chunks.py"),
        "charge-embedding-off-by-one": ("charge + self.max_charge)",
            "charge + self.max_charge - 1)"),
        "difference-of-the-ends-reversed": ("first - second)", "second - first)"),
    }),
    ("model/edgewise.py", NAIVE, {
        "all-gates-share-one-index": ("torch.tensor(gates[1:]) - 1", "0 * torch.tensor(gates[1:])"),
        "gelu-in-the-edgewise-operator": ("functional.silu", "functional.gelu"),
    }),
    ("model/equivariant.py", NAIVE, {
        "gelu-in-the-feed-forward": ("functional.silu", "functional.gelu"),
        "norm-keeps-the-mean": ("scalar - scalar.mean(dim=-1, keepdim=True)", "scalar"),
        "norm-weighs-rows-alike": ("degrees * rows_of_degree[degree_of_row]",
            "len(degree_of_row) + 0 * rows_of_degree[degree_of_row]"),
    }),
    ("model/radial.py", NAIVE, {
        "gaussians-ten-times-too-wide": ("(2 * self.spacing)", "(20 * self.spacing)"),
        "gaussians-end-before-the-cutoff": ("cutoff / (count - 1)", "cutoff / count"),
        "envelope-with-a-wrong-coefficient": ("21 * x * x", "20 * x * x"),
        "element-embeddings-are-subtracted": ("self.sum(first_number) + self.sum",
            "self.sum(first_number) - self.sum"),
    }),
    ("model/pair_tower.py", NAIVE, {
        "pair-feed-forward-times-0": ("+ self.update(self", "+ 0 * self.update(self"),
        "pair-layers-all-read-the-last-states": ("min(number, len(read) - 1)", "-1"),
    }),
    ("model/heads/hamiltonian.py", NAIVE, {
        "odd-scalars-have-no-sigmoid": ("torch.sigmoid(factor)", "factor"),
        "odd-channels-of-a-row-are-symmetric": ("torch.cat([even, -odd]", "torch.cat([even, odd]"),
    }),
    ("model/tensor_product.py", NAIVE, {
        "product-of-an-atom-with-itself": ("ends.roll(pair_index.shape[1])", "ends"),
    }),
    ("model/heads/readouts.py", NAIVE, {
        "invariants-are-sums-over-orders": ("x.square().mean(dim=2)", "x.square().sum(dim=2)"),
    }),
    ("model/heads/dipole.py", "model/test_heads.py", {
        "vectors-are-not-x-y-z": ("np.argsort(ao_order", "(ao_order"),
        "charge-is-made-on-edges": ("(flow[first] - flow[second])", "flow[first]"),
        "edges-end-at-the-cutoff": ("envelope(edge.norm(dim=-1), cutoff) * (", "("),
        "ions-about-the-origin": (" - centre_of_nuclear_charge(batch)[batch.molecule]", ""),
    }),
    ("model/energy.py", ENERGY, {
        "forces-are-the-gradient": ("energy, -gradient", "energy, gradient"),
    }),
    ("model/helm.py", NAIVE, {
        "flow-takes-a-step-too-many": ("range(self.flow_steps - 1)", "range(self.flow_steps)",
            FLOW),
        "flow-steps-are-too-short": ("1 / self.flow_steps", "1 / (self.flow_steps + 1)", FLOW),
        "flow-ends-at-labels-with-reference": (
            "batch.onsite_target - self.reference_onsite(batch), batch",
            "batch.onsite_target, batch", FLOW),
        "reference-lacks-its-last-component": ("column < scalars", "column < scalars - 1"),
    }),
    ("model/chunks.py", "model/test_chunks.py", {
        "gradients-of-the-last-chunk-alone": ("torch._foreach_add_(gradients, of_chunk)",
            "gradients = list(of_chunk)"),
        "gradients-without-the-slope": ("mul_(slopes[0]", "mul_((0 * slopes[0] + 1)"),
    }),
    ("model/flow.py", "model/test_flow.py", {
        "euler-step-is-not-over-the-time-left": ("(1 - point.time.max())", "1.0"),
        "path-runs-backwards": ("(1 - t) * x_0 + t * x_1", "t * x_0 + (1 - t) * x_1"),
        "prior-too-narrow": ("WIDTH = 2**0.5", "WIDTH = 1.0"),
        "every-step-draws-the-same": ("{purpose}/{batch.noise_seed}/{key}", "{purpose}/{key}"),
        "all-molecules-draw-the-same": ("{purpose}/{batch.noise_seed}/{key}",
            "{purpose}/{batch.noise_seed}"),
    }),
    ("model/conditioning.py", FLOW, {
        "conditions-enter-with-unit-length": ("torch.log1p(length) / length", "1 / length"),
        "time-runs-twice-as-fast": ("torch.pi * time_B", "2 * torch.pi * time_B"),
    }),
    ("losses/hamiltonian.py", f"losses/test_losses.py model/test_chunks.py {HELM}", {
        "half-the-mean-square": ("torch.sqrt(mean) + mean", "torch.sqrt(mean) + mean / 2"),
        "onsite-count-of-every-pair-rank": ("float(sum(aos))) / batch.pair_world_size",
            "float(sum(aos)))"),
        "onsite-error-of-every-pair-rank": ("batch.atom_kinds, table) / batch.pair_world_size",
            "batch.atom_kinds, table)"),
        "onsite-loss-of-every-pair-rank": ("error.square().sum() / batch.pair_world_size",
            "error.square().sum()"),
        "offsite-labels-are-added": ("packed - batch.offsite_target",
            "packed + batch.offsite_target"),
    }),
    ("losses/references.py", "losses/test_losses.py", {
        "scale-forgets-how-many-atoms": ("(atoms * table.square()).sum()", "table.square().sum()"),
    }),
    ("losses/spectral.py", "losses/test_spectral.py", {
        "loewdin-slope-without-2": ("2 * self.loewdin *", "self.loewdin *"),
        "first-empty-orbital-is-left-out": ("occupied + self.virtuals",
            "occupied + self.virtuals - 1"),
    }),
    ("optim/adamw.py", "optim/test_optim.py", {
        "vectors-decay": ('"weight_decay": 0.0', '"weight_decay": config.weight_decay'),
    }),
    ("optim/schedule.py", "optim/test_optim.py", {
        "warm-up-starts-at-zero": ("(step + 1) / warmup_steps", "step / warmup_steps"),
        "cosine-to-the-wrong-end": ("0.5 * (1 + cos", "0.5 * (1 - cos"),
        "cosine-one-step-short": ("cos(pi * (step - warmup_steps)",
            "cos(pi * (step + 1 - warmup_steps)"),
    }),
    ("optim/average.py", "optim/test_optim.py", {
        "averages-do-not-reach-the-model": ("self._engine.sync_parameters()", "pass"),
        "average-decay-reversed": ("self._weights, 1 - self._decay", "self._weights, self._decay"),
    }),
    ("optim/muon.py", "optim/test_optim.py", {
        "muon-decay-grows": ('1 - group["lr"] * group["weight_decay"]',
            '1 + group["lr"] * group["weight_decay"]'),
        "muon-scaled-by-the-short-side": ("sqrt(max(shape))", "sqrt(min(shape))"),
        "muon-momentum-reversed": ('gradients, 1 - group["momentum"]',
            'gradients, group["momentum"]'),
        "newton-schulz-coefficient": ("2.0315", "2.1", f"optim/test_optim.py {HELM}"),
    }),
    ("optim/soap.py", "optim/test_soap.py", {
        "soap-bases-stay": ("step % self._renew_every == 0", "step < 0"),
        "soap-squares-stay-where-eigenvalues-change-places": (
            "self.variance.take_along_dim(places, dim=side.axis)", "self.variance.clone()",
        ),
        "soap-counts-the-first-gradient": (
            "stacked[some], step - 1)", "stacked[some], step)",
        ),
        "soap-null-spaces-are-left-to-rounding": ("_SEPARATION = 1e-7", "_SEPARATION = 0.0"),
        "soap-rounding-errors-get-full-steps": ("_EPS = 1e-6", "_EPS = 0.0"),
    }),
    ("optim/build.py", "optim/test_optim.py", {
        "muon-takes-what-is-not-hidden": ("set(hidden) & trained.keys()", "set(trained)"),
    }),
    ("parallel/engine.py", "parallel/test_engine.py", {
        "gradients-are-not-clipped": ("0 < self._clip_norm < grad_norm", "grad_norm < 0"),
        "clipped-by-the-wrong-quotient": ("self._clip_norm / grad_norm if", "1 / grad_norm if"),
        "schedule-is-not-applied": ("peak * factor", "peak"),
        "gradient-without-the-slope-of-the-loss": ("slope * clipped)", "clipped)"),
        "norm-without-the-slope-of-the-loss": ("abs(slope) * float", "float"),
        "a-step-on-nan": ("on_any_rank(not (finite and", "on_any_rank(not (True or"),
        "micro-batches-travel-too-early": ("number == len(micro_batches)", "number == 1",
            TWO_RANKS),
    }),
    ("parallel/step_sums.py", f"parallel/test_engine.py {TWO_RANKS}", {
        "shared-molecules-count-for-every-rank": ("batch.num_molecules / ranks",
            "batch.num_molecules"),
        "finite-micro-batches-are-suspects": ("not bool(torch.isfinite(total))",
            "bool(torch.isfinite(total))"),
    }),
    ("parallel/processes.py", TWO_RANKS, {
        "data-rank-is-the-pair-rank": ("self.rank // self.pair_world_size",
            "self.rank % self.pair_world_size"),
    }),
    ("parallel/pair_parallel.py", TWO_RANKS, {
        "gradients-of-pair-ranks-are-not-summed": ("dist.all_reduce(total, group=ctx.group)",
            "dist.barrier(group=ctx.group)"),
    }),
    ("parallel/flat_shards.py", TWO_RANKS, {
        "norm-of-one-rank-s-part": ("dist.all_reduce(squares, group=group)",
            "dist.barrier(group=group)"),
        "shards-all-start-at-zero": ("start=min(start, tensor.numel())", "start=0"),
    }),
    ("parallel/strategies/ddp.py", TWO_RANKS, {
        "ddp-averages-gradients": ("done.value()[0])", "done.value()[0] / dist.get_world_size())"),
    }),
    ("parallel/strategies/fsdp2.py", TWO_RANKS, {
        "fsdp2-averages-gradients": ("set_gradient_divide_factor(1.0)",
            "set_gradient_divide_factor(2.0)"),
    }),
    ("parallel/strategies/deepspeed.py", "parallel/test_flow_parity.py", {
        "zero-averages-gradients": ("gradient.mul_(self._processes.world_size)",
            "gradient.mul_(1)"),
    }),
    ("parallel/divergence.py", TWO_RANKS, {
        "exchanged-words-go-unnoticed": ("(2 * torch.arange(len(words), device=words.device) + 1)",
            "1"),
        "ties-trust-the-first": ("tied or value", "value"),
    }),
    ("parallel/snapshot.py", TWO_RANKS, {
        "replicas-lose-their-last-element": ("(shard.replica + i) // shard.replicas",
            "(shard.replica + i) // shard.replicas - i"),
    }),
    ("parallel/sharded_matrices.py", TWO_RANKS, {
        "matrices-come-back-in-owners-order": ("[by_matrix[i] for i in range(len(by_matrix))]",
            "list(by_matrix.values())"),
    }),
    ("parallel/collectives.py", TWO_RANKS, {
        "each-rank-decides-alone": ("bool(sum_over_ranks(torch.tensor(float(flag))))", "flag"),
    }),
    ("pretraining/loop.py", HELM, {
        "schedule-one-step-ahead": ("cosine_schedule(step - 1,", "cosine_schedule(step,"),
        "average-stands-still": ("self._average.update()", "self._average"),
        "validated-without-the-average": (
            "with self._average.applied() if self._average else nullcontext():",
            "with nullcontext():"),
    }),
    ("pretraining/checkpoint.py", "pretraining/test_checkpoint.py", {
        "checksums-are-not-compared": ("sha256(folder / name) != digest", "not digest"),
        "the-oldest-are-kept": ("checkpoints[:-keep]", "checkpoints[keep:]"),
        "best-is-the-worst": ("best = min(validated", "best = max(validated",
            "pretraining/test_checkpoint.py"
            "::test_the_best_checkpoint_is_kept_and_a_first_loss_that_is_nan_is_not_the_best"),
    }),
    ("pretraining/guard.py", SPIKES, {
        "losses-far-below-are-spikes": ("(math.log(loss) - middle)",
            "abs(math.log(loss) - middle)"),
        "spread-without-its-floor": ("/ max(spread, ", "/ max(spread, 0 * "),
        "a-second-loss-is-judged": ("_FEWEST = 16", "_FEWEST = 1"),
        "nothing-is-forgotten": ("_WINDOW = 64", "_WINDOW = 6400"),
        "spread-is-not-that-of-a-normal": ("spread = 1.4826 *", "spread = 0.4826 *"),
    }),
    ("pretraining/memory/plan.py", POLYETHYLENE, {
        "a-tenth-of-the-atoms-within-a-cutoff": ("DENSITY = 0.12", "DENSITY = 0.012"),
    }),
    ("types.py", "model/test_chunks.py", {
        "shares-of-pairs-leave-one-out": ("total * (rank + 1) // world_size",
            "total * (rank + 1) // world_size - rank"),
    }),
    ("data/graphs/collate.py", "data/test_collate.py", {
        "messages-reach-as-far-as-pairs": ("distance < config.trunk_cutoff",
            "distance < config.pair_cutoff"),
    }),
    ("data/graphs/neighbors.py", "data/test_collate.py", {
        "higher-atomic-number-first": ("atomic_numbers[first] > atomic_numbers",
            "atomic_numbers[first] < atomic_numbers"),
    }),
    ("data/loading/sampler.py", "data/test_sampler.py", {
        "every-rank-reads-the-same": ("[rank::world_size]", "[0::world_size]"),
        "steps-overlap-by-a-sample": ("first = step * self.batch_molecules",
            "first = step * (self.batch_molecules - 1)"),
    }),
    ("data/format/shards.py", COST, {
        "a-typical-block-of-16-elements": ("1600  #", "16  #"),
    }),
    ("evaluation/orbitals.py", "evaluation/test_orbitals.py", {
        "density-counts-one-spin": ("return 2 * filled @ filled.T", "return filled @ filled.T"),
        "homo-is-the-lumo": ("self.energies[self.occupied - 1]", "self.energies[self.occupied]",
            "evaluation/test_stretch.py"),
        "weights-of-the-other-state": ("target).sum(axis=1)", "target).sum(axis=0)",
            "evaluation/test_states.py"),
        "lumo-one-too-high": ("self.energies[self.occupied])", "self.energies[self.occupied + 1])",
            "evaluation/test_stretch.py"),
        "ghosts-lie-inside": ("weights < 0.5", "weights > 0.5", "evaluation/test_orbitals.py"
            "::test_ghosts_lie_mostly_outside_the_space_that_they_should_fill"),
        "orbital-gradient-without-2": ("return 2 * float(np.linalg", "return float(np.linalg",
            "evaluation/test_orbitals.py::test_the_orbital_gradient_is_that_which_pyscf_converges"),
        "energy-weighted-density-of-one-spin": ("2 * (filled * self", "(filled * self",
            "evaluation/test_report.py::test_the_true_row_is_compared_with_the_stored_labels"),
        "threshold-near-the-noise": ("THRESHOLD_PER_ERROR = 15.0", "THRESHOLD_PER_ERROR = 1.5",
            "evaluation/test_molecule.py"
            "::test_the_threshold_follows_the_error_unless_it_is_given"),
    }),
    ("evaluation/states.py", "evaluation/test_states.py", {
        "lumo-errors-are-those-of-the-homo": ("solution.lumo -", "solution.homo -"),
        "all-orbitals-count-as-occupied": ("slice(0, reference.occupied)", "slice(0, None)"),
        "dipoles-by-their-length": ("norm(state.dipole - reference.dipole)",
            "norm(state.dipole) - np.linalg.norm(reference.dipole)"),
    }),
    ("evaluation/results.py", ANEW, {
        "any-record-is-reused": ('content["fingerprint"] != mark', 'not content["fingerprint"]'),
        "arrays-of-one-shape-are-the-same": ("digest.update(np.ascontiguousarray(thing).tobytes())",
            "pass"),
    }),
    ("evaluation/dataset.py", "evaluation/test_dataset.py", {
        "the-smallest-molecule-is-drawn": ("np.argmax(np.where(atoms <=",
            "np.argmin(np.where(atoms <="),
    }),
    ("evaluation/errors.py", "evaluation/test_errors.py", {
        "pairs-of-one-triangle": ("(ordered | ordered.T) & ~onsite", "ordered & ~onsite"),
    }),
    ("evaluation/geometry.py", "basis/test_assembly.py::test_pairs_beyond_the_cutoff_stay_zero", {
        "near-pairs-are-cut-off": ("distances(molecule) < cutoff", "distances(molecule) > cutoff"),
    }),
    ("evaluation/molecule.py", COMPLETED, {
        "far-pairs-count-twice": ("int(far.sum()) // 2", "int(far.sum())",
            "evaluation/test_molecule.py"
            "::test_a_perfect_model_of_short_range_makes_exactly_the_truncated_row"),
        "grids-may-differ": ('"ecp", "grid_level", "auxbasis"', '"ecp", "auxbasis"',
            "evaluation/test_molecule.py::test_labels_of_another_method_are_refused_by_name"),
        "judged-with-H0-added-twice": ("job.residual + below", "job.residual + 2 * below"),
    }),
    ("evaluation/prediction.py", OF_PYSCF, {
        "predicted-with-H0-added-twice": ("residual + functional.baseline(model",
            "residual + 2 * functional.baseline(model"),
        "one-orbital-too-many-is-filled": ("< solution.occupied", "<= solution.occupied",
            "evaluation/test_prediction.py"
            "::test_the_orbitals_solve_the_equation_in_pyscf_order"),
    }),
    ("evaluation/predictors.py", "evaluation/test_predictors.py", {
        "foreign-files-are-reordered-backwards": ("conventions.to_canonical(",
            "conventions.from_canonical("),
    }),
    ("evaluation/report.py", "evaluation/test_report.py", {
        "forces-in-milli-hartree": ("F / meV/A\", HARTREE_IN_MEV", "F / meV/A\", 1000.0"),
        "median-is-the-mean": ("np.median(by_molecule)", "by_molecule.mean()"),
    }),
    ("evaluation/stretch.py", "evaluation/test_stretch.py", {
        "a-bond-grows-by-the-factor": ("(factor - 1) * vector", "factor * vector"),
        "the-first-atom-s-side-moves": ("fragment == fragment[bond[1]]",
            "fragment == fragment[bond[0]]"),
    }),
    ("evaluation/embedding.py", "evaluation/test_embedding.py", {
        "variance-of-one-axis": ("np.square(singular[:2]) / total",
            "singular[:2] / singular.sum()"),
    }),
    ("dft/energies.py", "dft/test_energies.py dft/test_forces.py", {
        "gradient-limit-is-that-of-the-energy": ("conv_tol**0.5", "conv_tol",
            "evaluation/test_report.py::test_scf_cycles_and_seconds_are_reported"),
        "dipole-in-atomic-units": ('unit="Debye"', 'unit="AU"',
            "dft/test_energies.py::test_the_dipole_points_from_iodine_to_hydrogen"),
        "forces-are-the-gradient-of-the-energy": ("-gradients(", "gradients(",
            "dft/test_forces.py::test_forces_of_a_converged_density_are_the_slope_of_the_energy"),
    }),
]  # fmt: skip
