"""Published evidence as data, and the rules that choose it for a case. Nothing here is learned, and nothing is chosen by a language model.

library.py     entries (evidence.yaml): statement, population, figures, source, how and when it was verified, until when it may be cited
diagnosis.py   what the results on tissue amount to by WHO CNS5, and where they contradict each other
rules.py       which entries may be cited beside which results
"""
