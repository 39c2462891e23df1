"""The data room: image datasets in memory (`images`) and the batches made of them (`pipeline`)."""
