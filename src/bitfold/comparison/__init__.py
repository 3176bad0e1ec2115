"""Comparisons: every method at every budget, on equal terms.

config       what is compared, and the cells of it
planned      which cells can be built, and whom they face
compare      the whole job
cells        one cell: trained, measured, kept
grid         the same search of rates for everybody
opponents    equal bytes
survey       what is measured of the log for each cell's diagnosis
diagnosis    what is measured of a run beside its figures
board        figures, and what they add up to
differences  over seeds, with intervals
floors       what figures lie between; popularity, logistic regression
ceiling      what the truth of a synthetic log would score
quotes       what each method makes of each budget, without training
folder       the folder of a comparison
records      its files as checked records
machine      where figures were measured
"""
