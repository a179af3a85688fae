"""The backlog: tables of millions of panels to tables of parameters, in units that are done once and for all.

settings    what is asked of every panel, and what a run is known by
plan        a source of quotes, and the units it falls into: an underlying's block of dates each
reading     the panels of a unit
unit        their calibration, each started from the one before as well
parts       the folder of finished units
driving     the units one after the other, by this process or by a cluster

A unit depends on its quotes and the settings alone, whoever does it and after whatever: so a run that was killed and
resumed has the values of one that was not.
"""
