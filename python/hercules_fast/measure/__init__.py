"""A model on this machine, for real: run it, load it, measure it, and compare with what was predicted."""
