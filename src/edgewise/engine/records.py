"""What the engine's journal holds: a record is a fact that must survive a power cut. Recovery folds them over an empty state."""

Record = None
