"""A client of NVFlare that sleeps instead of training; runs in the environment of NVFlare."""

import nvflare.client as flare

from benchmarks.federation.stand_in import train


def main() -> None:
    """Answer every round with the arrays that came, a little moved."""
    flare.init()
    site = flare.get_site_name()
    while flare.is_running():
        model = flare.receive()
        if model is None:
            break
        train(site, round_number=int(model.current_round) + 1)
        moved = {name: value + value.dtype.type(1e-3) for name, value in model.params.items()}
        flare.send(flare.FLModel(params=moved, metrics={"accuracy": 0.5}, meta={"NUM_STEPS_CURRENT_ROUND": 1}))


if __name__ == "__main__":
    main()
