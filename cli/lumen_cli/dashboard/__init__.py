"""`lumen top`: what goes on, live in the terminal. One pane a file; all of it is fed by one connection."""
