"""The other dialects clients may speak: each request becomes a chat request, each answer is dressed again. Pure.

One pair of files a dialect: `NAME_request.py` (bytes → chat request) and `NAME_answer.py` (the answer in the OpenAI
dialect → the client's own). What happens in between is the one path every request takes.
"""
