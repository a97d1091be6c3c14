"""Whether today's code still does what it did when a result was made: results outlive an edit, but not a change.

What results rest on is parted into components (`components`). Of each, `data/behaviour.json` records a version, a
digest of its source (`source`) and what a probe saw of it (`probes`). While the digest stays the same, so does the
version. If it differs, the probe runs once, in a process of its own, and decides (`record`). A behaviour that was
changed on purpose gets its next version by `python -m fusionlib results accept`, with the reason; results of the
version before then no longer fit.

Uses `fusionlib.support.files` and the facts in `data/`; only the probes, which nothing else imports, use the whole
library.
"""
