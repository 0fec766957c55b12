"""Run each student as one task of a Ray cluster: ``--gate-ray ADDRESS``.

The controller (:mod:`.controller`) collects and decides as in a local run. A task (:mod:`.task`) runs the tests of one
student on a node, and returns all of their reports or none. Ray is imported in functions only.
"""
