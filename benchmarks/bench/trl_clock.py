"""What an update is to a trainer of TRL's: so many of its steps."""

import torch
import transformers
import trl
from common import Clock

VERSIONS = {"trl": trl.__version__, "torch": torch.__version__, "transformers": transformers.__version__}


class Ticks(transformers.TrainerCallback):
    """Tells a clock of every `each`-th step, with what is `known` of the work."""

    def __init__(self, each: int, **known):
        self.clock, self.each = Clock(versions=VERSIONS, **known), each

    def on_train_begin(self, args, state, control, **kwargs):
        self.clock.start()

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % self.each == 0:
            self.clock.tick()
