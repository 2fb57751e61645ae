"""Does each piece of the learning method earn its place? Arms that differ in one thing, trained on the same phantom hospitals.

    phantoms.yaml  the hospitals        arms.yaml  the common run and what each arm changes
    plan           both, read           cohorts    scans and samples of a seed
    jobs           one arm, one seed    scoring    a model on held-out patients, all subsets
    results        of single runs       statistics figures, intervals
    summary        rows over seeds      report     the page          figures  plots
    final          what the final table must hold

Every arm of a seed sees the same patients and the same random draws, so differences are paired. `python -m benchmarks.learning --help`.
"""
