"""Slow twins: each says in the plainest Python what a fast routine must answer. Read these first."""
