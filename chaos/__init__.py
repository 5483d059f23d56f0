"""Chaos: traffic flows, things are broken on purpose, and then every promise is checked.

    producer    publishes events over HTTP and writes down what it tried and what was promised to it
    receiver    takes webhooks, writes each down on the disk before it answers, and misbehaves when told to
    service     Ringbearer itself, as `ringbearer up` runs it
    nemesis     breaks things by a seed, and writes down what it did
    invariants  reads what everybody wrote down, and the store, and finds the contradictions
    run         one run from the first process to the verdict

`python -m chaos --minutes 10 --seed 7` runs it; the acceptance tests use the same parts.
"""
