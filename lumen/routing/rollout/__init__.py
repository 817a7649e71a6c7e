"""Canary rollouts: who gets the candidate, what each answer says about it, and when that is enough. Pure."""
