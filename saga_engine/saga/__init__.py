"""
What an author writes in a Python module: sagas, their steps and their compensations.

    definition   Saga, Step, CommandSpec: what the author declares
    retry        a step's retry policy: how many attempts, and the delay before each retry
    rules        what makes a saga valid, checked when its module is loaded
    diagrams     a saga as a diagram, in text

To read the decider, read the classes of `definition`, what a Saga derives from its steps, and the
first lines of `rules`: they list what is true of every saga that runs.

Pure: no I/O, no clock, no randomness.
"""
