"""The compared systems, one file each, written from their papers and from what their public code is known to do."""
