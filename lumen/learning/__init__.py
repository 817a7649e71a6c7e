"""Learning from the operator's traffic: answers compared in the dark, labels, scorers fitted, canaries in motion."""
