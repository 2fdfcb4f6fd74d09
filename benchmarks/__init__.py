"""The numbers, each beside a named baseline measured in the same run. `make bench` runs all; `ARGS="placement fetch"` some.

Every module offers `measure() -> Iterable[Row]`. Times on shared machines are noisy: believe ratios and medians.
"""
