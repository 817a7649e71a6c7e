"""One gateway takes over from another while both run: sockets, idle connections, and the ledger.

They speak over a UNIX socket in the run folder that only this user can open; each message is a JSON object, some carry
file descriptors (SCM_RIGHTS). What the new one (the successor) says, and what the old one answers:

1. `take` → `taken` with the lock of the run folder and the listening socket. Nothing changes yet: should the successor
   fail now, the old one just goes on. `busy`: the one before the old one is not done yet.
2. `go`, once the successor's engines are ready → `come`: what was learned is written down.
3. `here`: the successor listens on the same socket, too → `gone`: the old one listens no more → `mine`: so the
   successor alone serves, and the run folder's files are its own. Should it die before it has said so, the old one
   listens again and goes on.
4. `released`: the old one has closed the ledger, which the successor opens. With `lent`, the old one still finishes
   its requests and their costs are read from its files, see `gateway/estate.py`; without, they are done.
5. Connections come, each as soon as nothing is under way on it. A client keeps its connection and notices nothing.
6. `ask` with a number, where the old one begins a new try of a request and has to hold money → `answer` with that
   number.
7. The end of the socket: the old one's engines are gone too, or it was killed.

The ledger has one writer at any time: the successor opens it at 4, or else at 7. Until then requests wait, usually for
some hundredths of a second.

`channel.py` carries the messages, `predecessor.py` is the side that gives, `successor.py` the one that takes.
"""
