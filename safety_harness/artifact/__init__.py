"""A patch taken out of the test run: reviewed, put on the model that ships, proven, and undone.

``build`` makes an artifact of what a search found and needs torch; ``folder`` reads one, ``place`` puts it into a
checkpoint and out again, ``compare`` and ``card`` tell of it: these read bytes and need none.
"""
