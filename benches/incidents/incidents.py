"""All incidents, in the order of the tables."""

from edge import EDGE
from hangs import HANGS
from innocent import INNOCENT

INCIDENTS = HANGS + INNOCENT + EDGE
