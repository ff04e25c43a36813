from fastres.api import DataError as DataError
from fastres.api import Diverged as Diverged
from fastres.api import FastresError as FastresError
from fastres.api import MachineError as MachineError
from fastres.api import Model as Model
from fastres.api import Prediction as Prediction
from fastres.api import Preempted as Preempted
from fastres.api import Run as Run
from fastres.api import UsageError as UsageError
from fastres.api import load as load
from fastres.api import pack as pack
from fastres.api import train as train

__version__: str
