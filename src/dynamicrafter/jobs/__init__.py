"""Many clips from one list: read it, check it whole, divide it among workers, and keep account of what is done.

job.py       a job, its takes, and what decides their frames
cells.py     what a cell of a list says, as the option that its column names
lists.py     CSV and JSONL → jobs; folders.py, pictures and prompts in a folder → jobs
checks.py    everything that can be seen to be wrong before a model is loaded
ledger.py    results.jsonl: a line for each job that is done, or failed
outputs.py   clips that appear under their names whole, and how one is recognised later
plan.py      what is done, what is missing, and which takes go through the network together
maker.py     a worker's inside: the model, and takes → finished files
workers.py   what every kind of worker has in common; local.py, processes; cluster.py, Ray
run.py       hand out batches, publish what comes back, try again what got lost

Nothing but maker.py, inside a worker, imports torch.
"""
