"""The store: addresses, records, staging, models, locks, and whether what was written is still there."""
