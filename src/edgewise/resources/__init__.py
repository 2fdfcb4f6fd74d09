"""The nouns: typed, declarative kinds, selectors, quantities and validation.

Rules: frozen msgspec structs only, no input or output, no clock. A kind is one module; `kinds.py` is the table of all of them.
Specs are what a person or a controller wants, statuses are what was seen; each is written separately.
Specs refuse unknown fields, because a person's typing error must not pass; statuses ignore them, because they come over the wire from
agents that may be newer.

Start reading at `meta.py` (the envelope), then `workload.py`.
"""
