"""What the console says of a training session: what is trained before it, and what came of it after."""

import shlex
import signal
from pathlib import Path

from rlweights.backend import cores, device
from rlweights.learning.environments.action_masks import NAMES
