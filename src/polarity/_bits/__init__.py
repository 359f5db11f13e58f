"""Packed booleans and random choices: what several rooms count, draw and store bits with."""
