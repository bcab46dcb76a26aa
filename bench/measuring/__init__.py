"""How `bench/compare` measures: the load, the processes, the figures and the table."""
