"""An emulated provider of all three dialects, with scripted faults chosen by the model's name."""
