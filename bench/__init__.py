"""Side-by-side benchmarks; each prints ratios and medians and writes its own section of RESULTS.md."""
