"""The same work from a terminal: the console script `maskwright`."""
