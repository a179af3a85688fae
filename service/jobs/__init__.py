"""The job process, and how workers hand it what they do not do themselves: batches, jobs, audits.

Apart from the workers, so that an interactive request shares neither the interpreter lock nor the memory of a process
with a batch, and the operating system can tell them apart: whatever a worker has to do goes before all of this.
"""
