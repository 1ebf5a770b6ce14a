"""What is said: events, manifests, filters, positions, limits and errors. Pure: no I/O, no clock, no framework."""
