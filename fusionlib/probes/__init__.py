"""The behaviour of each component on small inputs: `python -m fusionlib.probes NAME ...` prints it as JSON.

Each probe is a generator of (name, value, tolerance). Where possible everything is computed in float64, so that even a
small change of behaviour is larger than the rounding errors of another order of sums.
"""
