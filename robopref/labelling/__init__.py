"""The labelling tool: a server and its page on which people compare trajectories; answers belong to `labelers/people.py`."""
