"""Evidence that may be looked at after every report: confidence sequences and e-processes over summaries of what devices reported.

Rules: pure functions over frozen structs, standard library only; a summary is merged, never its samples kept; every formula names its
source. An *e-value* is a number whose mean is at most 1 while the null hypothesis holds, at whatever moment one stops to look: it
reaches 1/a with a probability of at most a (Ville 1939). A *confidence sequence* is the set of all values against which the e-value is
still small.

Start reading at `units.py` (what is counted), `compare.py` (new against old over devices that differ), and `mixture.py` (why one may look
at any time). `proportions.py`, `means.py`, `quantiles.py` and `counts.py` hold the exact tools for independent samples.
"""
