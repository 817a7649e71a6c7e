"""What a route learns from its own traffic: which requests a cheaper target answers as well as the strong one.

Pure: requests and labels in, scores, models and thresholds out; chance and time are arguments. numpy is imported by the
modules that compute and not here, so that a gateway without a learning route never loads it.
"""
