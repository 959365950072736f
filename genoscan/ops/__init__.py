"""The maths of one tile: the selective scan and its two derivatives."""
