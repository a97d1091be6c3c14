"""The compared systems, written from their papers and from the behaviour of their public code."""
