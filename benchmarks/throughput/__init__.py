"""How fast, compared with what a user would pick instead: a pytest-benchmark suite.

`pytest benchmarks/throughput --benchmark-only` runs it as any such suite;
`python -m benchmarks throughput` runs it, prints the table of ratios and writes it down.
Every test times a contender and its reference in turns, round by round, and notes the median of the
rounds' ratios: absolute times on a shared machine say little.
"""
