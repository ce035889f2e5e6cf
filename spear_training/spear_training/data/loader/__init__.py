"""From stores to batches on a device: workers decode, the device augments and normalises."""
