"""Whether the code still behaves as it did when a result was made: an edit keeps results valid, a change does not.

The code behind results is divided into components (`components`). For each, `data/behaviour.json` records a version, a
digest of its source (`source`) and the numbers that a probe gave (`probes`). While the digest stays the same, so does
the version. If it differs, the probe runs once, in a process of its own, and decides (`record`). A behaviour that was
changed on purpose gets its next version by `python -m fusionlib results accept`, with the reason; results of earlier
versions then no longer fit.

Uses `fusionlib.support.files` and the facts in `data/`; only the probes, which nothing else imports, use the whole
library.
"""
