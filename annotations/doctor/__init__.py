"""The mask doctor: everything that is wrong with a dataset, file by file, and the cures that one click does.

check        the way in: a dataset folder → a report
checking     the work, in parallel processes, kept for the next time
examine      one picture and its mask, each decoded once; plain facts
remarks      what is odd about the whole: tiny classes, look-alikes across a split, masks that seem turned
findings     what a report says
cures        apply a cure, and undo it; cure_plans, cure_table, recode: what each would do
duplicates   pictures that look the same
fingerprint  one short text for the whole content of a dataset
"""
