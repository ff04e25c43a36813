from fastres.api import FastresError as FastresError
from fastres.api import Model as Model
from fastres.api import Prediction as Prediction
from fastres.api import Run as Run
from fastres.api import load as load
from fastres.api import pack as pack
from fastres.api import train as train

__version__: str
