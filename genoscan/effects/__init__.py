"""Effects of variants and of all substitutions of a region on a target.

variants.py           START HERE: effects of variants, from a job to scores and files
variant_job.py        what is computed: which changes together, from which windows
stretches.py          parts of a sequence that are read at once
change_effects.py     effects of the changes of a job, stored so that a run can continue
edit_effects.py       exact effects of edits of a sequence
edit_sums.py          sums of a target's terms, with and without edits
first_order.py        their derivatives
background.py         random changes, with which variants are compared
variant_output.py     VCF, tables and Parquet
variant_tracks.py     tracks around variants, for both alleles
mutagenesis.py        every substitution of a region
mutagenesis_files.py  its archives, tables and tracks
"""
