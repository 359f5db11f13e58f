"""What small thresholds of polarity can act on before anything is trained.

The smallest survivor of pruning fresh networks by magnitude.
"""
