"""GMMAS-GPT: an optional language model at the hospital that words given sentences anew, and the verifier of what it wrote.

The model sees templates and labels, never a value, a name or a pseudonym. It returns the same sentences in other words; facts, figures and
sources are put in afterwards. What the verifier does not pass is not shown: the template stands instead, and says so.

    settings.py    where the model is, and that it is on a private address
    endpoint.py    one call of /v1/chat/completions
    prompt.py      what the model is told
    words.yaml     the words that a rewrite may use besides those it was given; words that carry meaning
    vocabulary.py  reads it
    verifier.py    what is wrong with a rewrite
    order.py       whether a cautious sentence keeps its words in their order
    rewriting.py   a report in other words
    referral.py    questions that belong to the care team
    questions.py   answers from a report's sentences
"""
