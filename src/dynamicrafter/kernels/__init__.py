"""How the networks' operations are done on a device: the same numbers as the plain formulas, in less time or memory.

products.py     linear layers, by oneDNN on a processor
attention.py    softmax attention, in parts where a device has no fused kernel for the whole
convolution.py  convolutions as matrix products where those are faster
parts.py        rows that don't depend on one another, some at a time
layout.py       views between pictures, tokens and planes of time
transfer.py     copies to a device that nobody waits for
"""
