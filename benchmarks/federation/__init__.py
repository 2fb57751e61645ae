"""What a round costs beside the training, side by side: this project, plain Flower and NVFlare.

    python -m benchmarks.federation          (make bench-federation)

Every system trains by the same stand-in (stand_in.train: it sleeps and notes when), on the same bytes of model, over TLS on loopback, with
as many real processes as it has in a deployment. A period is the time from the first training start of a round to that of the next, so it
holds everything a round is made of, whatever a system calls it. With P periods of a run

    overhead   wall_s = sum over periods of (period - longest training) / P        cpu_s = processor seconds of all processes / P

Processor seconds are read from the kernel (accounting), those of the threads that train taken off. A run counts where every site trained in
every round and every reply was averaged (notes). Runs of the systems alternate, so that a busy machine slows all alike, and a cell of the
tables is the median of its repeats. Seconds depend on the machine; ratios from one run are the result: each system as it is deployed, and
both at equal work (plan.COMPARED).
"""
