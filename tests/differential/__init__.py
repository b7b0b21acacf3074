"""What subscribers receive, compared with what a plain SELECT as each of them would have shown.

`script` makes tables, policies, users and writes from a seed; `oracle` knows what each user could see after
each commit; `run` plays a script through the real path and compares. `python -m tests.differential` does so
for as long as one likes, and cuts a failing script down to the few steps that matter.
"""
