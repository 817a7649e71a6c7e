"""Pure parts every other package builds on: no I/O, no clock, no randomness."""
