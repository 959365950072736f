"""Responses of predictions and of sensitivities to the change of one base.

perturbation.py  START HERE: the change of the prediction at each base
probe.py         the base that is changed, and the windows
interaction.py   the change of all sensitivities
"""
