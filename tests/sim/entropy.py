"""No chance but the seed's: what the product asks the kernel for randomness is drawn from the story's own stream."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """uuid4, secrets and the module `random` give the same in each run of the seed."""
    stream = random.Random(f"entropy {seed}")
    real, real_urandom, state = os.urandom, random._urandom, random.getstate()  # type: ignore[attr-defined]
    os.urandom = stream.randbytes
    random._urandom = stream.randbytes  # type: ignore[attr-defined]
    random.seed(seed)
    try:
        yield
    finally:
        os.urandom, random._urandom = real, real_urandom  # type: ignore[attr-defined]
        random.setstate(state)
