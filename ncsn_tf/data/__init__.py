"""Image datasets in memory (`images`) and the batches made from them (`pipeline`)."""
