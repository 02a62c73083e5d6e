"""Checks on a rented GPU machine without network, in parts of at most four minutes that stand alone."""
