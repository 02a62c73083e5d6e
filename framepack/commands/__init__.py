"""Commands of ``python -m framepack``, each a module that adds its own arguments."""
