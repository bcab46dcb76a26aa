"""The parts of `bench/compare` and `bench/hub`: load, processes, figures and table."""
