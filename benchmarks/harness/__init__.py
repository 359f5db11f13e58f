"""Train, time and store runs: what every experiment is performed with."""
