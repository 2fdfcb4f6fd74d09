"""The model server beside MLServer and BentoML, unmodified, each in an environment of its own: `make bench-peers`."""
