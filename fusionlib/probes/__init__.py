"""What a component does, seen on small inputs: `python -m fusionlib.probes NAME ...` prints it as JSON.

Each probe is a generator of (name, value, tolerance). Where the code allows it everything is computed in float64, in
which rounding is no matter, so that a small change of behaviour stands out from another order of sums.
"""
