"""Stage two: stacked optimizers, schedules, batches and the loop."""
