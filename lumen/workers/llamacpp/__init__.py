"""The llama.cpp worker: one model, one process, the OpenAI dialect plus token ids on a UNIX socket or a
loopback port.
"""
