"""The log, and the way on to it: admission, publisher, catalog."""
