"""Benchmark: the whole system as processes, measured from outside and from within.

    receiver   takes webhooks as fast as one process can, counts them and their delays
    load       publishes: closed loop, in batches, or at a given rate
    system     the service under test, what its processes use, and what it says of itself
    courier    the sending loop alone against the same receiver, for comparison
    scenarios  what is measured
    report     the table and the files

`python -m bench` runs everything; `--quick` runs the same in small.
"""
