"""The experiments of "Find a Winning Sign": loops, recipes, comparisons, tables and figures."""
