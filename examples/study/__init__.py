"""The protocol on which methods are compared, and the sweep with which a method is searched for.

``python -m examples.study`` is its command line, from the root of a clone.
"""
