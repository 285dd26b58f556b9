"""What can go wrong in the lab: one tree, every sentence names the way out. `__main__` prints it once and exits.

LabError
  ScenarioError    the scenario file is not what the lab can run
  MachineError     this machine or user cannot carry a lab
  StateError       that lab is running already, or is not there
  CommandError     ip, nft or a container's launch failed
  NotSettledError  the pods run, but some client never finished a full round
"""


class LabError(Exception):
    """Base of everything the lab raises on purpose."""


class ScenarioError(LabError):
    """The scenario file is not what the lab can run."""


class MachineError(LabError):
    """This machine or user cannot carry a lab."""


class StateError(LabError):
    """That lab is running already, or is not there."""


class CommandError(LabError):
    """A command that the lab depends on failed."""


class NotSettledError(LabError):
    """Some pod never became ready, or some client never finished a full round."""
