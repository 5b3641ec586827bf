"""What a grid costs before it starts: its cells in time, memory and FLOPs on this machine, and what is weak in it."""
