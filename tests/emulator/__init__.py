"""An emulated OpenAI-dialect provider with scripted faults, chosen by the model's name."""
