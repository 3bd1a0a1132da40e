"""Side-by-side benchmark of cvxift, its peers and the bare solvers.

``python -m tests.benchmarks`` runs every case of ``cases`` with every contender of ``contenders`` and writes

- ``docs/benchmark.json``: every number that was measured,
- ``docs/benchmark.md``: tables and the list of promises with pass or fail, generated from the JSON,
- ``docs/benchmark.png``: forward plus backward time of each contender, logarithmic.

What is measured, for one case and one contender, in a process of its own:

- build: construction of the layer from the CVXPY problem (a bare solver has none);
- first: the first forward call (whatever a contender does lazily is in there);
- forward, backward: median over rounds; contenders take turns round by round, so that a noisy machine is noisy for all.
  Calls cycle through several draws of the parameters, so that a cached or warm-started answer to the same question is
  not counted as a solve;
- error of x and of the gradient with respect to every parameter: ‖g − g*‖ / ‖g*‖, the worst over draws and over the
  instances of a batch, g* from ``references``, which share no code with cvxift. Where g* is zero
  (below 1e-12 of the whole gradient) the norm of the whole gradient stands in the denominator;
- memory: high-water mark of the process, less what it held before the build (imports and data).
"""
